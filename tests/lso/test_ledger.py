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
from tfvae.lso.ledger import Ledger, read_header, read_ledger
from tfvae.lso.records import (
    Addition,
    Amendment,
    Entry,
    Measurement,
    Proposal,
    Query,
    Round,
    Withdrawal,
)

HEADER = {"task": "peaks", "seed": 3, "budget": 10, "data": "7f3a"}


INPUT = {"text": "ü\n", "size": [1, 2]}
TIME = "2024-05-06T07:08:09+00:00"


def _query(number, **values):
    query = Query(
        number=number,
        round=number // 2,
        latent=[0.1 * number, -1.0],
        input=INPUT,
        seed=number + 100,
    )
    return query._replace(**values)


PROPOSED = Proposal([_query(number) for number in range(6)])


def _result(number, **values):
    result = Measurement(
        number, 1 / 3 + number, seconds=0.25, time=TIME, constraints={"c": -1.0}
    )
    return result._replace(**values)


def _entry(number, **values):
    """Returns the entry of `_query` after `_result`."""
    entry = Entry(
        round=number // 2,
        query=number,
        latent=[0.1 * number, -1.0],
        input=INPUT,
        score=1 / 3 + number,
        failure=None,
        seconds=0.25,
        seed=number + 100,
        time=TIME,
        constraints={"c": -1.0},
        scores=(1 / 3 + number,),
    )
    return entry._replace(**values)


FAILED = {"score": None, "failure": "ValueError: \u2603"}
FAILED_ENTRY = {**FAILED, "scores": ()}


def _proposed(ledger):
    """Returns a ledger that has queries, which results can refer to."""
    if not ledger.records.next_number:
        ledger.append(PROPOSED)
    return ledger


class LedgerTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_tempdir().full_path) / "ledger"

    def _open(self, header=HEADER, **settings):
        opened = Ledger(self.path, header, **settings)
        self.addCleanup(opened.close)
        return _proposed(opened)

    def _write(self, *records, header=HEADER, **settings):
        with _proposed(Ledger(self.path, header, **settings)) as ledger:
            for record in records:
                ledger.append(record)

    def _without_sync(self):
        """Saves the time; what is tested then is what a file contains."""
        self.enter_context(mock.patch.object(os, "fsync"))

    def test_entries_come_back_as_they_were(self):
        entries = [_entry(0), _entry(1, **FAILED_ENTRY), _entry(2)]
        self._write(_result(0), _result(1, **FAILED))
        with self._open() as ledger:
            self.assertEqual(ledger.entries, entries[:2])
            ledger.append(_result(2))
            self.assertEqual(ledger.entries, entries)
        found = read_ledger(self.path)
        self.assertEqual(found.header, HEADER)
        self.assertEqual(found.entries, entries)
        self.assertEqual(found.waiting, [_query(n) for n in (3, 4, 5)])

    def test_header_is_read_alone(self):
        self._write(_result(0))
        Ledger(self.path, {**HEADER, "budget": 9}).close()
        self.assertEqual(read_header(self.path)["budget"], 9)
        whole = self.path.read_bytes()
        self.path.write_bytes(whole + b'{"header": {"bud')
        self.assertEqual(read_header(self.path), {**HEADER, "budget": 9})
        self.path.write_bytes(whole[:20])
        self.assertIsNone(read_header(self.path))

    def test_each_line_is_json(self):
        self._write(_result(0))
        header, proposed, result = map(
            json.loads, self.path.read_text().splitlines()
        )
        self.assertEqual(header["header"], HEADER)
        self.assertLen(proposed["proposed"], 6)
        self.assertEqual(result["result"]["score"], 1 / 3)
        # What is left at its default is left out.
        self.assertEqual(
            [*result["result"]],
            ["query", "score", "constraints", "seconds", "time"],
        )
        self.assertEqual([*result], ["result", "crc32"])

    def test_entry_is_written_by_one_write_and_on_the_disk_then(self):
        ledger = self._open()
        calls = mock.Mock()
        with (
            mock.patch.object(os, "write", side_effect=os.write) as write,
            mock.patch.object(os, "fsync", side_effect=os.fsync) as fsync,
        ):
            calls.attach_mock(write, "write")
            calls.attach_mock(fsync, "fsync")
            ledger.append(_result(0))
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
        ledger = self._open()
        ledger.append(
            Proposal(
                [
                    _query(
                        6,
                        latent=np.array([0.5, -0.25], np.float32),
                        input=np.eye(2, dtype=np.float32),
                    )
                ]
            )
        )
        ledger.append(_result(np.int64(6), score=np.float64(2.5)))
        (entry,) = read_ledger(self.path).entries
        self.assertEqual(entry.latent, [0.5, -0.25])
        self.assertEqual(entry.input, [[1.0, 0.0], [0.0, 1.0]])
        self.assertEqual(entry.score, 2.5)

    @parameterized.parameters(math.nan, math.inf, -math.inf)
    def test_score_that_is_not_finite_is_a_failure(self, score):
        ledger = self._open()
        for record in (_result(0, score=score, seconds=score), _result(1)):
            written = ledger.append(record)
        ledger.append(Amendment(1, score))
        first, second = ledger.entries
        for one in (first, second):
            self.assertIsNone(one.score)
            self.assertEqual(
                one.failure, f"the score must be finite, got {score}"
            )
        self.assertTrue(math.isnan(first.seconds))
        self.assertEqual(written, _result(1))
        self.assertNotRegex(self.path.read_text(), "NaN|Infinity")
        self.assertEqual(read_ledger(self.path).entries[1], second)

    def test_latents_that_are_not_finite_are_read_as_nan(self):
        latent = [math.nan, math.inf, 2.0]
        self._write(Proposal([_query(6, latent=latent)]))
        np.testing.assert_array_equal(
            read_ledger(self.path).waiting[-1].latent, [math.nan, math.nan, 2.0]
        )

    def test_every_cut_leaves_a_prefix_that_can_be_gone_on_with(self):
        self._without_sync()
        records = [PROPOSED, _result(0), _result(1, **FAILED), _result(2)]
        entries = [_entry(0), _entry(1, **FAILED_ENTRY), _entry(2)]
        self._write(*records[1:])
        whole = self.path.read_bytes()
        ends = np.cumsum([len(line) for line in whole.splitlines(True)])
        for size in range(len(whole)):
            self.path.write_bytes(whole[:size])
            # All that lacks at most the line's end is there.
            num_left = max(int(np.sum(ends - 1 <= size)) - 1, 0)
            is_cut = size and size not in ends and size + 1 not in ends
            with _warning(self, is_cut):
                ledger = Ledger(self.path, HEADER)
                left = entries[: max(num_left - 1, 0)]
                self.assertEqual(ledger.entries, left, size)
                for record in records[num_left:]:
                    ledger.append(record)
                ledger.close()
                self.assertEqual(self.path.read_bytes(), whole)

    def test_every_cut_can_be_read_and_reading_changes_nothing(self):
        entries = [_entry(0), _entry(1)]
        self._write(_result(0), _result(1))
        whole = self.path.read_bytes()
        header_size = whole.index(b"\n")
        for size in range(header_size, len(whole) + 1, 7):
            self.path.write_bytes(whole[:size])
            ledgers._logger.disabled = True
            self.addCleanup(setattr, ledgers._logger, "disabled", False)
            found = read_ledger(self.path).entries
            self.assertEqual(found, entries[: len(found)])
            self.assertEqual(self.path.read_bytes(), whole[:size])

    @parameterized.parameters(0, 1)
    def test_zeros_where_the_last_line_was_are_dropped(self, num_ends):
        self._write(_result(0))
        whole = self.path.read_bytes()
        self._write(_result(1))
        size = self.path.stat().st_size
        self.path.write_bytes(
            whole + bytes(size - len(whole) - num_ends) + b"\n" * num_ends
        )
        with _warning(self, True), self._open() as ledger:
            self.assertEqual(ledger.entries, [_entry(0)])
        self.assertEqual(self.path.read_bytes(), whole)

    def test_warning_reports_what_was_lost(self):
        self._write(_result(0), _result(1, failure="lost in space"))
        self.path.write_bytes(self.path.read_bytes()[:-5])
        with self.assertLogs("tfvae.lso.ledger", "WARNING") as logs:
            self._open()
        self.assertIn("lost in space", logs.output[0])
        self.assertIn(str(self.path), logs.output[0])

    def test_every_change_of_a_byte_shows(self):
        self._without_sync()
        self._write(_result(0), _result(1))
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
        self._write(_result(0))
        self.path.write_bytes(self.path.read_bytes().replace(b"0.25", b"0.26"))
        with self.assertRaisesRegex(ValueError, "line 3 of .* is damaged"):
            Ledger(self.path, HEADER)

    @parameterized.parameters(
        b"my thesis, without which I am lost", b"1,2\n3,4\n", b'{"a": 1}'
    )
    def test_other_files_are_left_alone(self, data):
        self.path.write_bytes(data)
        with self.assertRaises(ValueError):
            Ledger(self.path, HEADER)
        self.assertEqual(self.path.read_bytes(), data)

    @parameterized.parameters(
        (_result(0), "`query` must be .* got 0, which has its result already"),
        (_result(6), "`query` must be .* got 6, which has not been proposed"),
        (Amendment(1, 2.0), "`query` must be .* got 1, which waits for one"),
        (Withdrawal(7), "`query` must be .* got 7, which has not been prop"),
        (Proposal([_query(7)]), "`number` must be 6, the next one, got 7"),
        (Proposal([_query(5)]), "`number` must be 6, the next one, got 5"),
        (Round(1), "`round` must be 0, the next one, got 1"),
        (_result(True), "`query` must be an integer"),
        (_result(-1), "`query` must be an integer"),
        (_result(1.0), "`query` must be an integer"),
        (Round(None), "`round` must be an integer"),
        (Addition(math.nan, input="x"), "`score` must be a finite number"),
        (_result(5), "`query` must be one with an input .* got 5, whose lat"),
        (
            Amendment(0, 1.0, None, {"c": math.nan}),
            r"`constraints\['c'\]` must",
        ),
        (_result(1, constraints={"c": "x"}), r"`constraints\['c'\]` must be a"),
        (Addition(1.0, "x", None, {"c": None}), r"`constraints\['c'\]` must"),
    )
    def test_what_can_not_be_next_is_refused(self, record, message):
        self._without_sync()
        with Ledger(self.path, HEADER) as ledger:
            queries = [*PROPOSED.queries[:5], _query(5, input=None)]
            ledger.append(Proposal(queries))
            ledger.append(_result(0))
            before = self.path.read_bytes()
            with self.assertRaisesRegex(ValueError, message):
                ledger.append(record)
            self.assertEqual(self.path.read_bytes(), before)
        content = ledgers.to_content(record)
        self.path.write_bytes(before + ledgers._line(content))
        with self.assertRaisesRegex(ValueError, f"line 4 of .* {message}"):
            Ledger(self.path, HEADER)

    def test_results_come_in_any_order(self):
        self._without_sync()
        self._write(*(_result(number) for number in (4, 0, 5, 2)))
        with self._open() as ledger:
            self.assertEqual(
                ledger.entries, [_entry(number) for number in (0, 2, 4, 5)]
            )
            self.assertEqual([*ledger.records.entries], [4, 0, 5, 2])
            self.assertEqual(ledger.waiting, [_query(1), _query(3)])

    def test_an_amendment_replaces_and_the_file_keeps_both(self):
        self._write(_result(0), Amendment(0, 1.7, time="later"))
        (entry,) = read_ledger(self.path).entries
        self.assertEqual(entry.score, 1.7)
        self.assertEqual(entry.scores, (1.7,))
        self.assertEqual(entry.seconds, 0.25)
        self.assertEqual(entry.time, "later")
        self.assertTrue(entry.is_amended)
        self.assertIn(str(1 / 3), self.path.read_text())

    def test_a_withdrawn_query_waits_again(self):
        self._write(_result(0), _result(1), Withdrawal(0))
        with self._open() as ledger:
            self.assertEqual(ledger.entries, [_entry(1)])
            self.assertEqual([one.number for one in ledger.waiting][:2], [0, 2])
            ledger.append(_result(0, score=5.0))
            self.assertEqual(
                ledger.entries[0], _entry(0, score=5.0, scores=(5.0,))
            )

    def test_repeats_are_averaged_with_their_spread(self):
        self._write(header=HEADER | {"repeats": 3})
        with self._open(HEADER | {"repeats": 3}) as ledger:
            for score in (1.0, 2.0, 4.5):
                self.assertIn(_query(0), ledger.waiting)
                ledger.append(_result(0, score=score, constraints={"c": score}))
            (entry,) = ledger.entries
            self.assertEqual(entry.score, 2.5)
            self.assertEqual(entry.scores, (1.0, 2.0, 4.5))
            self.assertAlmostEqual(entry.spread, np.std([1, 2, 4.5], ddof=1))
            self.assertEqual(entry.constraints, {"c": 2.5})
            self.assertEqual((entry.num_results, entry.seconds), (3, 0.75))
            self.assertNotIn(_query(0), ledger.waiting)
            with self.assertRaisesRegex(ValueError, "has its result already"):
                ledger.append(_result(0))

    def test_failed_repeats_count_for_nothing(self):
        self._write(header=HEADER | {"repeats": 3})
        with self._open(HEADER | {"repeats": 3}) as ledger:
            for values in ({"score": 1.0}, FAILED, {"score": 3.0}):
                ledger.append(_result(0, **values))
            for _ in range(3):
                ledger.append(_result(1, **FAILED))
            first, second = ledger.entries
            self.assertEqual((first.score, first.failure), (2.0, None))
            self.assertEqual(
                (second.score, second.failure), (None, "ValueError: \u2603")
            )

    def test_the_mean_of_equal_scores_is_this_score(self):
        self._write(header=HEADER | {"repeats": 3})
        with self._open(HEADER | {"repeats": 3}) as ledger:
            for _ in range(3):
                ledger.append(_result(0, score=0.1))
            self.assertEqual(ledger.entries[0].score, 0.1)

    def test_a_file_without_given_header_is_opened_with_its_own(self):
        self._write(_result(0))
        with Ledger(self.path) as ledger:
            self.assertEqual(ledger.header, HEADER)
            self.assertEqual(ledger.entries, [_entry(0)])
        other = self.path.with_name("other")
        with self.assertRaisesRegex(ValueError, "must have a header, got none"):
            Ledger(other)

    def test_earlier_versions_are_read_and_not_continued(self):
        old = dict(
            round=0,
            query=0,
            latent=[0.5, None],
            input="x",
            score=2.0,
            failure=None,
            seconds=None,
            seed=1,
            time="now",
        )
        header = ledgers._line({"header": HEADER})
        self.path.write_bytes(header + ledgers._line(old))
        (entry,) = read_ledger(self.path).entries
        self.assertEqual((entry.score, entry.scores), (2.0, (2.0,)))
        with self.assertRaisesRegex(ValueError, "of an earlier version"):
            Ledger(self.path, HEADER)
        line = ledgers._line(old)
        self.path.write_bytes(header + line + line)
        with self.assertRaisesRegex(ValueError, "line 3 .* got 0 again"):
            read_ledger(self.path)

    def test_another_header_is_refused_with_all_that_differs(self):
        self._write(_result(0))
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

    @parameterized.parameters(20, 5)
    def test_budget_may_change(self, budget):
        self._write(_result(0))
        self._write(_result(1), header=HEADER | {"budget": budget})
        found = read_ledger(self.path)
        self.assertEqual(found.header, HEADER | {"budget": budget})
        self.assertEqual(found.entries, [_entry(0), _entry(1)])
        with self._open() as ledger:
            self.assertEqual(ledger.changed, {"budget": (budget, 10)})
        with self._open() as ledger:
            self.assertEqual(ledger.changed, {})
        with self.assertRaisesRegex(ValueError, "`budget` is 10 .*, 30 here"):
            self._open(HEADER | {"budget": 30}, changeable=())

    def test_cut_of_a_header_that_changed_leaves_the_one_before(self):
        self._without_sync()
        self._write(_result(0))
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
        self._write(_result(0), header=header)
        self._write(_result(1), header=header)
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
        found = read_ledger(self.path)
        self.assertEqual((found.header, found.entries), (HEADER, []))
        ledger.append(_result(0))
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
        ledger.append(_result(0))
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
            ledger.append(_result(1))
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(ledger.entries, [_entry(0)])
        ledger.append(_result(1))
        self.assertEqual(read_ledger(self.path).entries, [_entry(0), _entry(1)])

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
        ledger.append(_result(0))
        write = os.write
        with (
            mock.patch.object(os, "write", lambda f, data: write(f, data[:50])),
            mock.patch.object(os, "ftruncate", side_effect=OSError("no")),
            self.assertRaisesRegex(OSError, "no"),
        ):
            ledger.append(_result(1))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_result(1))
        ledger.close()
        with _warning(self, True), self._open() as ledger:
            self.assertEqual(ledger.entries, [_entry(0)])
            ledger.append(_result(1))

    def test_failed_sync_leaves_it_to_the_next_opening(self):
        ledger = self._open()
        with (
            mock.patch.object(os, "fsync", side_effect=OSError("bad disk")),
            self.assertRaisesRegex(OSError, "bad disk"),
        ):
            ledger.append(_result(0))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_result(0))
        ledger.close()
        self.assertEqual(self._open().entries, [_entry(0)])

    def test_interrupt_after_the_write_loses_and_repeats_nothing(self):
        ledger = self._open()
        with (
            mock.patch.object(os, "fsync", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            ledger.append(_result(0))
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_result(0))
        ledger.close()
        self.assertEqual(self._open().entries, [_entry(0)])

    def test_closed_ledger_takes_nothing(self):
        ledger = self._open()
        ledger.close()
        ledger.close()
        with self.assertRaisesRegex(RuntimeError, "must be opened again"):
            ledger.append(_result(0))

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
from tfvae.lso.ledger import Ledger
from tfvae.lso.records import Measurement, Proposal, Query
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
    ledger.append(Proposal([Query(query, 0, [0.5], "x", 0)]))
    ledger.append(Measurement(query, 1.0, seconds=0.1, time="now"))
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
