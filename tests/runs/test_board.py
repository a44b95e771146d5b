# SPDX-License-Identifier: Apache-2.0
"""The board answers what it should, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import pathlib
import subprocess
import sys
import threading

from absl.testing import absltest, parameterized

from tests.runs.test_listing import train
from tfvae.cli import board as command
from tfvae.runs import board
from tfvae.runs.board import is_addressed, open_file, parts_of

ROOT = pathlib.Path(__file__).parents[2]


class AddressTest(parameterized.TestCase):
    @parameterized.parameters(
        "127.0.0.1:80", "localhost:80", "LocalHost:80", "localhost", "127.0.0.1"
    )
    def test_own_names_are_taken(self, host):
        self.assertTrue(is_addressed(host, 80))

    @parameterized.parameters(
        "", "localhost", "localhost:8001", "evil.example:8000",
        "localhost:8000.evil.example", "localhost:8000@evil", "0.0.0.0:8000",
        "[::1]:8000", "127.0.0.1.nip.io:8000",
    )  # fmt: skip
    def test_other_names_are_refused(self, host):
        self.assertFalse(is_addressed(host, 8000))

    @parameterized.parameters(
        "../a.png", "a/../../b.png", "%2e%2e/a.png", "a%2f..%2fb.png",
        ".git/config.json", "a/%00.png", "a\\..\\b.png",
    )  # fmt: skip
    def test_paths_that_lead_elsewhere_are_refused(self, path):
        with self.assertRaises(board.RefusedError):
            parts_of(path)

    def test_names_are_decoded(self):
        self.assertEqual(parts_of("a%20b//./%C3%A9.png"), ["a b", "é.png"])


class FileTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)
        self.folder = os.open(self.root, os.O_RDONLY)
        self.addCleanup(os.close, self.folder)
        secret = pathlib.Path(self.create_tempdir().full_path)
        (secret / "secret.png").write_text("secret")
        (self.root / "in").mkdir()
        (self.root / "in/one.png").write_text("one")
        (self.root / "in/model.npz").write_text("model")
        (self.root / "away").symlink_to(secret)
        (self.root / "away.png").symlink_to(secret / "secret.png")
        (self.root / "near.png").symlink_to("in/one.png")
        (self.root / "folder.png").mkdir()
        os.mkfifo(self.root / "pipe.png")

    def test_file_is_opened_with_its_kind(self):
        file, kind = open_file(self.folder, ["in", "one.png"])
        with file:
            self.assertEqual((file.read(), kind), (b"one", "image/png"))

    @parameterized.parameters(
        "in/model.npz", "in", "in/none.png", "away/secret.png", "away.png",
        "near.png", "folder.png", "pipe.png", "in/one.png/one.png",
    )  # fmt: skip
    def test_other_files_are_not_opened(self, path):
        with self.assertRaises(board.RefusedError):
            open_file(self.folder, path.split("/"))


class ServerTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)
        train(self.root / "a b", **{"report.html": "<p>é</p>"})
        server = self.enter_context(board.Server(self.root))
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        self.port = server.server_port

    def request(self, path, method="GET", **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, 10)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()
        finally:
            connection.close()

    def test_requests_are_answered_or_refused(self):
        answer, content = self.request("/runs.json")
        self.assertEqual(answer.status, 200)
        (one,) = json.loads(content)["runs"]
        self.assertEqual((one["path"], one["report"]), ("a b", "report.html"))
        answer, content = self.request("/files/a%20b/report.html")
        self.assertEqual(content.decode(), "<p>é</p>")
        policy = answer.headers["Content-Security-Policy"]
        self.assertStartsWith(policy, "sandbox allow-scripts; default-src 'no")
        answer, page = self.request("/")
        self.assertIn(b"<table", page)
        self.assertEqual(answer.headers["X-Content-Type-Options"], "nosniff")
        head, nothing = self.request("/", "HEAD")
        self.assertEqual(nothing, b"")
        self.assertEqual(int(head.headers["Content-Length"]), len(page))
        for path, method, headers, status in (
            ("/", "POST", {}, 405),
            ("/files/a%20b/report.html", "DELETE", {}, 405),
            ("/", "GET", {"Host": "evil.example"}, 421),
            ("/runs.json", "GET", {"Host": f"evil.example:{self.port}"}, 421),
            ("/files/a%20b/../../x.png", "GET", {}, 404),
            ("/runs.json?in=..", "GET", {}, 404),
            ("/runs.json?in=%252e%252e", "GET", {}, 404),
            ("/runs.json?in=none", "GET", {}, 404),
            ("/etc/passwd", "GET", {}, 404),
        ):
            with self.subTest(path, method=method):
                answer, content = self.request(path, method, **headers)
                self.assertEqual(answer.status, status)
                self.assertEqual(content.count(b"\n"), 1)


class CommandTest(absltest.TestCase):
    def test_wrong_arguments_are_a_line(self):
        for words in ([], ["no/such"], ["a", "b"], [__file__], ["--port=x"]):
            with self.subTest(words):
                ended = subprocess.run(
                    [sys.executable, "tools/board.py", *words],
                    cwd=ROOT,
                    capture_output=True,
                    text=True,
                ) if words == ["no/such"] else None  # fmt: skip
                if ended is None:
                    self.assertEqual(command.main(words), 2)
                    continue
                self.assertEqual(ended.returncode, 2)
                self.assertRegex(ended.stderr, r"\Aerror: .*'no/such'\n\Z")

    def test_it_starts_without_tensorflow(self):
        script = (
            "import sys, tfvae.runs.board, tfvae.runs.listing\n"
            "import tfvae.runs.optimization_state, tfvae.runs.training_page\n"
            "sys.exit([n for n in ('tensorflow', 'keras', 'matplotlib')"
            " if n in sys.modules] or 0)"
        )
        ended = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True
        )
        self.assertEqual(ended.returncode, 0, ended.stderr)


if __name__ == "__main__":
    absltest.main()
