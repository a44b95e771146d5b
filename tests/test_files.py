# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import pathlib
from unittest import mock

from absl.testing import absltest, parameterized

from tfvae import files


class ReplacingTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.folder / "one.txt"
        self.path.write_text("old")

    def _names(self):
        return sorted(path.name for path in self.folder.iterdir())

    @parameterized.parameters(("w", "new \u03c0\n"), ("wb", b"new\0"))
    def test_new_content_comes_at_the_end(self, mode, content):
        with files.replacing(self.path, mode) as file:
            file.write(content)
            file.flush()
            self.assertEqual(self.path.read_text(), "old")
            self.assertEqual(self._names(), ["one.txt", "one.txt.partial"])
        content = content if mode == "wb" else content.encode()
        self.assertEqual(self.path.read_bytes(), content)
        self.assertEqual(self._names(), ["one.txt"])

    @parameterized.parameters(OSError, KeyboardInterrupt)
    def test_error_leaves_the_old_one_and_nothing_else(self, error):
        with self.assertRaises(error):
            with files.replacing(self.path) as file:
                file.write("new")
                raise error
        self.assertEqual(self.path.read_text(), "old")
        self.assertEqual(self._names(), ["one.txt"])

    @parameterized.parameters(
        (False, ["replace"]), (True, ["fsync", "replace"])
    )
    def test_content_is_on_the_disk_before_its_name(self, is_synced, names):
        calls = mock.Mock()
        with (
            mock.patch("os.fsync", calls.fsync),
            mock.patch("os.replace", calls.replace),
            files.replacing(self.path, is_synced=is_synced) as file,
        ):
            file.write("new")
        self.assertEqual([one[0] for one in calls.mock_calls], names)


class ReplacingPathTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.folder / "one.tif"
        self.path.write_text("old")

    def test_new_file_comes_at_the_end_with_the_usual_rights(self):
        with files.replacing_path(self.path) as temporary:
            self.assertEqual(temporary.parent, self.folder)
            self.assertEqual(temporary.suffix, ".tif")
            temporary.write_text("new")
            self.assertEqual(self.path.read_text(), "old")
        self.assertEqual(self.path.read_text(), "new")
        self.assertEqual([*self.folder.iterdir()], [self.path])
        other = self.folder / "other"
        other.touch()
        self.assertEqual(self.path.stat().st_mode, other.stat().st_mode)

    def test_error_leaves_the_old_one_and_nothing_else(self):
        with self.assertRaises(KeyboardInterrupt):
            with files.replacing_path(self.path) as temporary:
                temporary.write_text("new")
                raise KeyboardInterrupt
        self.assertEqual(self.path.read_text(), "old")
        self.assertEqual([*self.folder.iterdir()], [self.path])


if __name__ == "__main__":
    absltest.main()
