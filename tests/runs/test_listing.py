# SPDX-License-Identifier: Apache-2.0
"""What is listed of a folder of runs, from their files alone."""

from __future__ import annotations

import json
import os
import pathlib
import time
from unittest import mock

import filelock
from absl.testing import absltest, parameterized

from tests.runs import optimizations
from tfvae.runs import listing
from tfvae.runs.listing import FRESH_SECONDS

NOW = 1_700_000_000.0


def train(path, epochs=3, done=2, **files):
    """Writes the files of a training run that changed long ago."""
    path.mkdir(parents=True)
    texts = {
        "config.gin": f"EPOCHS = {epochs}\nfit.epochs = %EPOCHS\n",
        "metrics.csv": "epoch,bound,test_bound,seconds\n"
        + "".join(f"{i},{-10.0 / i},,0.5\n" for i in range(1, done + 1)),
        **files,
    }
    for name, text in texts.items():
        (path / name).write_text(text)
        os.utime(path / name, (NOW, NOW))


class StateTest(parameterized.TestCase):
    @parameterized.parameters(
        ((True, True, True, 0.0), "finished"),
        ((False, True, True, 9e9), "running"),
        ((False, False, True, 0.0), "failed"),
        ((False, False, False, 1.0), "running"),
        ((False, False, False, FRESH_SECONDS + 1.0), "interrupted"),
        ((False, False, False, 200.0, 100.0), "interrupted"),
        ((False, None, False, 200.0, 100.0), "running"),
    )
    def test_state(self, arguments, expected):
        self.assertEqual(listing.state_of(*arguments), expected)

    def test_held_locks_are_seen_and_not_taken(self):
        if listing.held_locks() is None:
            self.skipTest("Locks can not be read on this system.")
        path = pathlib.Path(self.create_tempdir().full_path) / "lock"
        lock = filelock.FileLock(path)
        with lock:
            one = path.stat()
            self.assertIn((one.st_dev, one.st_ino), listing.held_locks())
        self.assertNotIn((one.st_dev, one.st_ino), listing.held_locks())


class ListingTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)

    def runs(self, inside=None, now=NOW + 1000.0):
        found = listing.Listing(self.root).runs(inside or self.root, now)
        return {one.path: one for one in found}

    def test_training_runs_have_states_progress_and_results(self):
        summary = {"epochs": 3, "test_bound": -2.5, "training_seconds": 7.0}
        train(self.root / "done", 3, 3, **{"summary.json": json.dumps(summary)})
        train(self.root / "more", 9, 5, **{"summary.json": json.dumps(summary)})
        train(self.root / "stopped")
        train(self.root / "deep/er/failed", **{"error.log": "x\nValueError: y"})
        train(self.root / "restored", **{"config.gin": "@corrupted_image()"})
        train(self.root / ".hidden")
        (self.root / "link").symlink_to(self.root / "done")
        found = self.runs()
        self.assertEqual(
            {n: (r.state, r.done, r.total, r.result) for n, r in found.items()},
            {
                "done": ("finished", 3, 3, "test bound -2.5"),
                "more": ("interrupted", 5, 9, "bound -2"),
                "stopped": ("interrupted", 2, 3, "bound -5"),
                "deep/er/failed": ("failed", 2, 3, "bound -5"),
                "restored": ("interrupted", 2, None, ""),
            },
        )
        self.assertEqual(found["restored"].kind, "restoration")
        self.assertEqual(found["deep/er/failed"].note, "ValueError: y")
        self.assertEqual(found["done"].seconds, 7.0)

    def test_running_is_who_holds_the_lock(self):
        train(self.root / "one", lock="")
        one = (self.root / "one/lock").stat()
        held = frozenset([(one.st_dev, one.st_ino)])
        for locks, state in ((held, "running"), (frozenset(), "interrupted")):
            with mock.patch.object(listing, "held_locks", return_value=locks):
                self.assertEqual(self.runs()["one"].state, state)

    def test_only_what_has_changed_is_read_again(self):
        train(self.root / "one")
        train(self.root / "two")
        kept = listing.Listing(self.root)
        before = kept.runs(self.root, NOW)
        with mock.patch.object(
            listing, "_read", side_effect=listing._read
        ) as read:
            self.assertEqual(kept.runs(self.root, NOW), before)
            read.assert_not_called()
            metrics = self.root / "one/metrics.csv"
            metrics.write_text(metrics.read_text() + "3,-1,,1\n")
            after = {run.path: run for run in kept.runs(self.root, NOW)}
        read.assert_called_once()
        self.assertEqual((after["one"].done, after["two"].done), (3, 2))

    @parameterized.parameters(
        ("metrics.csv", ""),
        ("metrics.csv", "epoch,bound\n1"),
        ("metrics.csv", "\0\0\n\xff,2\n"),
        ("metrics.csv", 'epoch,"bound\n'),
        ("summary.json", '{"epochs": '),
        ("summary.json", "[1]"),
        ("summary.json", "[" * 100_000),
        ("study.json", "{}"),
        ("study.json", '{"cells": [1, {}, {"name": 7}]}'),
        ("pictures.json", '{"pictures": {"a": {"psnr": "x"}}}'),
        ("pictures.json", "null"),
        ("ledger.jsonl", "no json\n{}\n"),
        ("config.gin", "fit.epochs = %NONE"),
    )
    def test_damaged_files_are_listed(self, name, text):
        train(self.root / "one")
        (self.root / "one" / name).write_text(text, encoding="latin-1")
        self.assertEqual([*self.runs()], ["one"])

    def test_optimisation_has_its_best_score(self):
        optimizations.write(self.root / "lab", [1.0, 3.0, None], [[0.1]] * 3)
        one = self.runs(now=time.time() + 1000.0)["lab"]
        self.assertEqual((one.kind, one.unit), ("optimisation", "queries"))
        self.assertEqual((one.done, one.value), (3, 3.0))
        self.assertStartsWith(one.result, "best 3")
        self.assertEqual(one.note, "1 query failed")

    def test_optimisation_whose_model_is_trained_has_its_epochs(self):
        train(self.root / "lab/model")
        train(self.root / "lab/figures", lock="")
        for name in ("config.gin", "lock"):
            (self.root / "lab" / name).write_text("")
        found = self.runs(now=time.time() + 1000.0)
        self.assertEqual([*found], ["lab"])
        one = found["lab"]
        self.assertEqual((one.kind, one.done), ("optimisation", 2))
        self.assertIn("model is trained", one.note)

    def test_cells_are_inside_their_study(self):
        study = self.root / "grid"
        names = ("a", "b", "c", "d")
        for name in names[:3]:
            train(study / "cells" / name)
        (study / "cells/a/result.json").write_text("{}")
        (study / "cells/b/error.txt").write_text("ValueError: z")
        cells = {"cells": [{"name": name} for name in names]}
        (study / "study.json").write_text(json.dumps(cells))
        found = self.runs()
        self.assertEqual([*found], ["grid"])
        one = found["grid"]
        self.assertEqual((one.done, one.total), (1, 4))
        self.assertEqual(one.note, "1 cell failed")
        self.assertTrue(one.has_inside)
        inside = self.runs(study, time.time() + 1000.0)
        self.assertEqual(
            {name: one.state for name, one in inside.items()},
            {
                ".": "interrupted",
                "cells/a": "finished",
                "cells/b": "failed",
                "cells/c": "interrupted",
            },
        )

    def test_empty_folder_has_no_runs(self):
        self.assertEmpty(self.runs())
        self.assertEmpty(self.runs(self.root / "gone"))


if __name__ == "__main__":
    absltest.main()
