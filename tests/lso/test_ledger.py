# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from tfvae.lso import ledger as ledgers
from tfvae.lso.ledger import Entry, Ledger, read_ledger

HEADER = {"task": "peaks", "seed": 3, "budget": 10, "data": "7f3a"}


def _entry(number, **values):
    entry = Entry(
        round=number // 2,
        query=number,
        latent=[0.1 * number, -1.0],
        input={"text": "ü\n", "size": [1, 2]},
        score=1 / 3 + number,
        failure=None,
        seconds=0.25,
        seed=number + 100,
        time="2024-05-06T07:08:09+00:00",
    )
    return entry._replace(**values)


FAILED = {"input": None, "score": None, "failure": "ValueError: \u2603"}


class LedgerTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "ledger"

    def _open(self, header=HEADER, **settings):
        opened = Ledger(self.path, header, **settings)
        self.addCleanup(opened.close)
        return opened

    def _write(self, *entries, header=HEADER, **settings):
        with Ledger(self.path, header, **settings) as ledger:
            for entry in entries:
                ledger.append(entry)

    def _without_sync(self):
        """Saves the time; what is tested then is what a file contains."""
        self.enter_context(mock.patch.object(os, "fsync"))

    def test_entries_come_back_as_they_were(self):
        entries = [_entry(0), _entry(1, **FAILED), _entry(2)]
        self._write(*entries[:2])
        with self._open() as ledger:
            self.assertEqual(ledger.entries, entries[:2])
            ledger.append(entries[2])
            self.assertEqual(ledger.entries, entries)
        self.assertEqual(read_ledger(self.path), (HEADER, entries))

    def test_each_line_is_json(self):
        self._write(_entry(0))
        header, entry = map(json.loads, self.path.read_text().splitlines())
        self.assertEqual(header["header"], HEADER)
        self.assertEqual(entry["score"], 1 / 3)
        self.assertEqual([*entry], [*Entry._fields, "crc32"])

    def test_entry_is_written_by_one_write_and_on_the_disk_then(self):
        ledger = self._open()
        calls = mock.Mock()
        with (
            mock.patch.object(os, "write", side_effect=os.write) as write,
            mock.patch.object(os, "fsync", side_effect=os.fsync) as fsync,
        ):
            calls.attach_mock(write, "write")
            calls.attach_mock(fsync, "fsync")
            ledger.append(_entry(0))
        self.assertEqual(
            [name for name, *_ in calls.mock_calls], ["write", "fsync"]
        )
        self.assertEqual(
            self.path.read_bytes().splitlines(True)[-1],
            write.call_args.args[1],
        )

    def test_folder_is_synchronised_on_creation(self):
        folder = os.stat(self.path.parent).st_ino
        with mock.patch.object(os, "fsync") as fsync:
            fsync.side_effect = lambda file: synced.append(
                os.fstat(file).st_ino
            )
            synced = []
            self._write()
        self.assertIn(folder, synced)

    def test_arrays_and_scalars_of_numpy_become_numbers(self):
        entry = _entry(
            0,
            query=np.int64(0),
            latent=np.array([0.5, -0.25], np.float32),
            input=np.eye(2, dtype=np.float32),
            score=np.float64(2.5),
        )
        expected = _entry(
            0, latent=[0.5, -0.25], input=[[1.0, 0.0], [0.0, 1.0]], score=2.5
        )
        self.assertEqual(self._open().append(entry), expected)
        self.assertEqual(read_ledger(self.path)[1], [expected])

    @parameterized.parameters(math.nan, math.inf, -math.inf)
    def test_score_that_is_not_finite_is_a_failure(self, score):
        written = self._open().append(
            _entry(0, score=score, input=[score, 1.0], seconds=score)
        )
        self.assertIsNone(written.score)
        self.assertEqual(
            written.failure, f"the score must be finite, got {score}"
        )
        self.assertEqual(written.input, [None, 1.0])
        self.assertTrue(math.isnan(written.seconds))
        self.assertNotRegex(self.path.read_text(), "NaN|Infinity")
        again = read_ledger(self.path)[1][0]
        self.assertEqual(again[:6], written[:6])

    def test_latents_that_are_not_finite_are_read_as_nan(self):
        self._write(_entry(0, latent=[math.nan, math.inf, 2.0]))
        np.testing.assert_array_equal(
            read_ledger(self.path)[1][0].latent, [math.nan, math.nan, 2.0]
        )

    def test_every_cut_leaves_a_prefix_that_can_be_gone_on_with(self):
        self._without_sync()
        entries = [_entry(0), _entry(1, **FAILED), _entry(2)]
        self._write(*entries)
        whole = self.path.read_bytes()
        ends = np.cumsum([len(line) for line in whole.splitlines(True)])
        for size in range(len(whole)):
            self.path.write_bytes(whole[:size])
            # All that lacks at most the line's end is there.
            num_left = max(int(np.sum(ends - 1 <= size)) - 1, 0)
            is_cut = size and size not in ends and size + 1 not in ends
            with _warning(self, is_cut):
                ledger = Ledger(self.path, HEADER)
                self.assertEqual(ledger.entries, entries[:num_left], size)
                for entry in entries[num_left:]:
                    ledger.append(entry)
                ledger.close()
                self.assertEqual(self.path.read_bytes(), whole)

    def test_every_cut_can_be_read_and_reading_changes_nothing(self):
        entries = [_entry(0), _entry(1)]
        self._write(*entries)
        whole = self.path.read_bytes()
        header_size = whole.index(b"\n")
        for size in range(header_size, len(whole) + 1, 7):
            self.path.write_bytes(whole[:size])
            ledgers._logger.disabled = True
            self.addCleanup(setattr, ledgers._logger, "disabled", False)
            _, found = read_ledger(self.path)
            self.assertEqual(found, entries[: len(found)])
            self.assertEqual(self.path.read_bytes(), whole[:size])

    @parameterized.parameters(0, 1)
    def test_zeros_where_the_last_line_was_are_dropped(self, num_ends):
        self._write(_entry(0))
        whole = self.path.read_bytes()
        self._write(_entry(1))
        size = self.path.stat().st_size
        self.path.write_bytes(
            whole + bytes(size - len(whole) - num_ends) + b"\n" * num_ends
        )
        with _warning(self, True), self._open() as ledger:
            self.assertEqual(ledger.entries, [_entry(0)])
        self.assertEqual(self.path.read_bytes(), whole)

    def test_warning_reports_what_was_lost(self):
        self._write(_entry(0), _entry(1, failure="lost in space"))
        self.path.write_bytes(self.path.read_bytes()[:-5])
        with self.assertLogs("tfvae.lso.ledger", "WARNING") as logs:
            self._open()
        self.assertIn("lost in space", logs.output[0])
        self.assertIn(str(self.path), logs.output[0])

    def test_every_change_of_a_byte_shows(self):
        self._without_sync()
        self._write(_entry(0), _entry(1))
        whole = self.path.read_bytes()
        ends = np.cumsum([len(line) for line in whole.splitlines(True)])
        random = np.random.default_rng(5)
        for place in range(ends[1]):
            changed = bytearray(whole)
            changed[place] = random.choice(
                [one for one in b'0a"}' if one != whole[place]]
            )
            self.path.write_bytes(changed)
            line = 1 + int(np.sum(ends <= place))
            with self.assertRaisesRegex(ValueError, f"line {line} of"):
                Ledger(self.path, HEADER)
            with self.assertRaisesRegex(ValueError, f"line {line} of"):
                read_ledger(self.path)
            self.assertEqual(self.path.read_bytes(), changed)

    def test_damage_to_a_whole_last_line_shows(self):
        self._write(_entry(0))
        self.path.write_bytes(self.path.read_bytes().replace(b"0.25", b"0.26"))
        with self.assertRaisesRegex(ValueError, "line 2 of .* is damaged"):
            Ledger(self.path, HEADER)

    @parameterized.parameters(
        b"my thesis, without which I am lost", b"1,2\n3,4\n", b'{"a": 1}'
    )
    def test_other_files_are_left_alone(self, data):
        self.path.write_bytes(data)
        with self.assertRaises(ValueError):
            Ledger(self.path, HEADER)
        self.assertEqual(self.path.read_bytes(), data)

    @parameterized.parameters(0, 2, 4)
    def test_duplicates_and_gaps_are_refused(self, query):
        ledger = self._open()
        for known in (0, 1, 2):
            ledger.append(_entry(known))
        before = self.path.read_bytes()
        with self.assertRaisesRegex(ValueError, f"`query` must be .* {query}"):
            ledger.append(_entry(query, round=2))
        self.assertEqual(self.path.read_bytes(), before)

    @parameterized.parameters(
        ([1, 2], "line 2 of .* `query` must be 0, .* got 1"),
        ([0, 1, 1], "line 4 of .* `query` must be a new number, got 1"),
        ([0, 2], "line 3 of .* `query` must be 1, .* got 2"),
        ([0, 2, 1], "line 3 of .* `query` must be 1, .* got 2"),
    )
    def test_duplicates_and_gaps_of_a_file_are_refused(self, queries, message):
        lines = [
            ledgers._line(_entry(query, round=0)._asdict()) for query in queries
        ]
        self.path.write_bytes(
            b"".join([ledgers._line({"header": HEADER}), *lines])
        )
        with self.assertRaisesRegex(ValueError, message):
            Ledger(self.path, HEADER)

    def test_a_round_comes_in_any_order_if_asked_to(self):
        with self._open(in_order=False) as ledger:
            ledger.append(_entry(1, round=0))
            with self.assertRaisesRegex(ValueError, "`query` .* number, got 1"):
                ledger.append(_entry(1, round=0))
            with self.assertRaisesRegex(ValueError, "`query` must be 0"):
                ledger.append(_entry(2, round=1))
            for number in (0, 3, 4):
                ledger.append(_entry(number, round=min(number, 1)))
            with self.assertRaisesRegex(ValueError, "`query` must be 2"):
                ledger.append(_entry(5, round=2))
            ledger.append(_entry(2, round=1))
            ledger.append(_entry(5, round=2))
            self.assertEqual([one.query for one in ledger.entries], [*range(6)])
        with self._open(in_order=False) as ledger:
            self.assertEqual([one.query for one in ledger.entries], [*range(6)])
        self.assertLen(read_ledger(self.path)[1], 6)
        with self.assertRaisesRegex(ValueError, "line 2 of .* must be 0"):
            self._open()

    def test_rounds_do_not_go_back(self):
        ledger = self._open()
        ledger.append(_entry(0, round=1))
        with self.assertRaisesRegex(ValueError, "`round` must be at least 1"):
            ledger.append(_entry(1, round=0))

    @parameterized.parameters(
        {"query": -1}, {"query": 0.0}, {"query": True}, {"round": None}
    )
    def test_numbers_that_are_no_integers_are_refused(self, **values):
        name = next(iter(values))
        with self.assertRaisesRegex(ValueError, f"`{name}` must be an integer"):
            self._open().append(_entry(0, **values))

    def test_another_header_is_refused_with_all_that_differs(self):
        self._write(_entry(0))
        before = self.path.read_bytes()
        other = {"task": "peaks", "seed": 4, "budget": 10, "k": math.inf}
        with self.assertRaises(ValueError) as caught:
            Ledger(self.path, other)
        for text in (
            "`data` is '7f3a' in the file, missing here",
            "`k` is missing in the file, 'inf' here",
            "`seed` is 3 in the file, 4 here",
        ):
            self.assertIn(text, str(caught.exception))
        self.assertNotIn("task", str(caught.exception))
        self.assertEqual(self.path.read_bytes(), before)

    def test_budget_may_grow_and_not_shrink(self):
        self._write(_entry(0))
        self._write(_entry(1), header=HEADER | {"budget": 20})
        header, entries = read_ledger(self.path)
        self.assertEqual(header, HEADER | {"budget": 20})
        self.assertEqual(entries, [_entry(0), _entry(1)])
        with self.assertRaisesRegex(
            ValueError, "`budget` is 20 in the file, 10 here"
        ):
            self._open()
        with self.assertRaisesRegex(ValueError, "`budget` is 20 .*, 30 here"):
            self._open(HEADER | {"budget": 30}, extendable=())

    def test_cut_of_a_header_that_grew_leaves_the_one_before(self):
        self._without_sync()
        self._write(_entry(0))
        size = self.path.stat().st_size
        self._write(header=HEADER | {"budget": 20})
        whole = self.path.read_bytes()
        for cut in range(size, len(whole) - 1):
            self.path.write_bytes(whole[:cut])
            with _warning(self, cut > size), self._open() as ledger:
                self.assertEqual(ledger.header, HEADER)
                self.assertEqual(ledger.entries, [_entry(0)])

    def test_header_is_compared_as_json_has_it(self):
        header = {"sizes": (1, 2), "k": np.float32(0.5), "limit": math.inf}
        self._write(_entry(0), header=header)
        self._write(_entry(1), header=header)
        with self.assertRaisesRegex(
            ValueError, "`limit` is 'inf' in the file, None"
        ):
            self._open(header | {"limit": None})
        with self.assertRaisesRegex(TypeError, "`header` must be serialisable"):
            self._open({"task": object()})

    def test_one_process_writes_at_a_time(self):
        ledger = self._open()
        with self.assertRaisesRegex(
            RuntimeError, "is in use by another process"
        ):
            Ledger(self.path, HEADER)
        code = _OPEN_FROM_ELSEWHERE.format(str(self.path))
        found = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True
        )
        self.assertEqual(found.stdout, "locked\n", found.stderr)
        self.assertEqual(read_ledger(self.path), (HEADER, []))
        ledger.append(_entry(0))
        ledger.close()
        self._open()

    def test_a_refused_opening_leaves_the_room_of_the_other(self):
        ledger = self._open()
        ledger.reserve(1000)
        with self.assertRaisesRegex(
            RuntimeError, "is in use by another process"
        ):
            Ledger(self.path, HEADER)
        self.assertTrue(self.path.with_name("ledger.reserve").exists())

    @parameterized.parameters("kill", "close")
    def test_forked_process_does_not_hold_the_lock(self, how):
        code = _FORK.format(str(self.path))
        with subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as parent:
            child = int(parent.stdout.readline())
            self.addCleanup(os.kill, child, signal.SIGKILL)
            with self.assertRaisesRegex(
                RuntimeError, "is in use by another process"
            ):
                self._open()
            if how == "kill":
                parent.kill()
                parent.wait()
            else:
                parent.stdin.write("close\n")
                parent.stdin.flush()
                self.assertEqual(parent.stdout.readline(), "closed\n")
            self._open()
            os.kill(child, 0)  # It is still there.
            parent.kill()

    def test_a_refused_opening_lets_others_open(self):
        self._write()
        for _ in range(2):
            with self.assertRaisesRegex(ValueError, "`seed`"):
                Ledger(self.path, HEADER | {"seed": 4})
        self._open()

    @parameterized.parameters(0, 1, 60)
    def test_full_disk_leaves_the_ledger_as_it_was(self, num_written):
        ledger = self._open()
        ledger.append(_entry(0))
        before = self.path.read_bytes()
        write = os.write

        def full(file, data):
            if not num_written:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(file, data[:num_written])

        with (
            mock.patch.object(os, "write", full),
            self.assertRaisesRegex(OSError, "No space left"),
        ):
            ledger.append(_entry(1))
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(ledger.entries, [_entry(0)])
        ledger.append(_entry(1))
        self.assertEqual(read_ledger(self.path)[1], [_entry(0), _entry(1)])

    @parameterized.parameters(True, False)
    def test_room_is_taken_until_it_is_closed(self, allocates):
        ledger = self._open()
        with mock.patch.dict(os.__dict__):
            if not allocates:  # As on macOS.
                del os.posix_fallocate
            ledger.reserve(10_000)
        room = self.path.with_name(self.path.name + ".reserve")
        self.assertEqual(room.stat().st_size, 10_000)
        self.assertGreaterEqual(room.stat().st_blocks * 512, 10_000)
        ledger.close()
        self.assertFalse(room.exists())

    def test_full_disk_that_can_not_be_cut_back_leaves_one_that_reopens(self):
        ledger = self._open()
        ledger.append(_entry(0))
        write = os.write
        with (
            mock.patch.object(os, "write", lambda f, data: write(f, data[:50])),
            mock.patch.object(os, "ftruncate", side_effect=OSError("no")),
            self.assertRaisesRegex(OSError, "no"),
        ):
            ledger.append(_entry(1))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_entry(1))
        ledger.close()
        with _warning(self, True), self._open() as ledger:
            self.assertEqual(ledger.entries, [_entry(0)])
            ledger.append(_entry(1))

    def test_failed_sync_leaves_it_to_the_next_opening(self):
        ledger = self._open()
        with (
            mock.patch.object(os, "fsync", side_effect=OSError("bad disk")),
            self.assertRaisesRegex(OSError, "bad disk"),
        ):
            ledger.append(_entry(0))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_entry(0))
        ledger.close()
        self.assertEqual(self._open().entries, [_entry(0)])

    def test_interrupt_after_the_write_loses_and_repeats_nothing(self):
        ledger = self._open()
        with (
            mock.patch.object(os, "fsync", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            ledger.append(_entry(0))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_entry(0))
        ledger.close()
        self.assertEqual(self._open().entries, [_entry(0)])

    def test_closed_ledger_takes_nothing(self):
        ledger = self._open()
        ledger.close()
        ledger.close()
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_entry(0))

    def test_reading_needs_a_ledger(self):
        with self.assertRaises(FileNotFoundError):
            read_ledger(self.path)
        self.path.touch()
        with self.assertRaisesRegex(ValueError, "must have a header"):
            read_ledger(self.path)
        self.assertEqual(self.path.read_bytes(), b"")

    def test_killed_writer_leaves_all_it_said_it_wrote(self):
        code = _WRITE_WITHOUT_END.format(str(self.path))
        writer = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
        )
        with writer:
            said = [int(writer.stdout.readline()) for _ in range(20)]
            writer.kill()
            said += [int(line) for line in writer.stdout if line.endswith("\n")]
        ledgers._logger.disabled = True
        self.addCleanup(setattr, ledgers._logger, "disabled", False)
        with Ledger(self.path, {}) as ledger:
            numbers = [entry.query for entry in ledger.entries]
        self.assertBetween(len(numbers), len(said), len(said) + 1)
        self.assertEqual(numbers[: len(said)], said)


# The packages themselves would import TensorFlow, which takes seconds.
ROOT = str(pathlib.Path(ledgers.__file__).parents[2])
_WITHOUT_PACKAGE = f"""
import sys, types
for name in ("tfvae", "tfvae.lso"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [{ROOT!r} + "/" + name.replace(".", "/")]
from tfvae.lso.ledger import Entry, Ledger
"""

_HEADER = f"dict({', '.join(f'{k}={v!r}' for k, v in HEADER.items())})"

_OPEN_FROM_ELSEWHERE = (
    _WITHOUT_PACKAGE
    + f"""
try:
    Ledger({{0!r}}, {_HEADER})
except RuntimeError:
    print("locked")
"""
)

_FORK = (
    _WITHOUT_PACKAGE
    + f"""
import os, time
ledger = Ledger({{0!r}}, {_HEADER})
child = os.fork()
if not child:
    print(os.getpid(), flush=True)
    os.closerange(0, 2)
    time.sleep(1000)
sys.stdin.readline()
ledger.close()
print("closed", flush=True)
time.sleep(1000)
"""
)

_WRITE_WITHOUT_END = (
    _WITHOUT_PACKAGE
    + """
ledger = Ledger({0!r}, dict())
for query in range(10**6):
    ledger.append(Entry(0, query, [0.5], "x", 1.0, None, 0.1, 0, "now"))
    print(query, flush=True)
"""
)


def _warning(test, is_expected):
    """Expects a warning of a cut line, or none."""
    if is_expected:
        return test.assertLogs("tfvae.lso.ledger", "WARNING")
    return test.assertNoLogs("tfvae.lso.ledger", "WARNING")


if __name__ == "__main__":
    absltest.main()
