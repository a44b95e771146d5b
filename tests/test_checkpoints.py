# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
import os
import pathlib
import shutil
import zipfile
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tests import rank_threads
from tests.tvae import tiny
from tfvae import checkpoints
from tfvae.ranks import ONE_PROCESS


def _new_model(units=2):
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="relu"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(units),
        ]
    )
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss="mse")
    return model


def _trained_model(steps=3, units=2):
    """A model whose variables, Adam's too, have values of their own."""
    model = _new_model(units)
    model.optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(steps)
    for variable in [*model.trainable_variables, *model.optimizer.variables]:
        if variable.dtype == "float32":
            variable.assign(rng.normal(size=variable.shape))
    model.optimizer.iterations.assign(steps)
    return model


def _values(model):
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def _rewrite_without(path, member):
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if name != member:
                archive.writestr(name, data)


def _rewrite_with_log_joints(path, log_joints):
    """Makes a checkpoint of states what it was when they had log-joints."""
    with zipfile.ZipFile(path) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    content = json.loads(members["checkpoint.json"])
    for number, one in enumerate(content["variables"]):
        if one["name"] == "visited":
            one["name"] = "joints"
            one["shape"], one["dtype"] = list(log_joints.shape), "float32"
            file = io.BytesIO()
            np.save(file, log_joints)
            members[f"{number:04d}.npy"] = file.getvalue()
    members["checkpoint.json"] = json.dumps(content)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def _truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip_bit_of_array(path):
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo("0000.npy")
    data[info.header_offset + 400] ^= 0x10
    path.write_bytes(bytes(data))


class CheckpointsTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path)

    def test_restores_weights_optimizer_and_counters(self):
        saved = _trained_model(steps=3)
        checkpoints.save(self.directory, saved, 3, {"rows": [0.1]})
        fresh = _new_model()
        found = checkpoints.restore_latest(self.directory, fresh)
        self.assertEqual(found.epoch, 3)
        self.assertEqual(found.extra, {"rows": [0.1]})
        self.assertEqual(int(fresh.optimizer.iterations.numpy()), 3)
        for one, other in zip(_values(saved), _values(fresh), strict=True):
            self.assertAllEqual(one, other)

    def test_training_after_restoring_equals_training_on(self):
        x = np.ones((4, 3), np.float32)
        unbroken, resumed = _new_model(), _new_model()
        unbroken.fit(x, x[:, :2], epochs=2, verbose=0, shuffle=False)
        checkpoints.save(self.directory, unbroken, 2)
        checkpoints.restore_latest(self.directory, resumed)
        for model in (unbroken, resumed):
            model.fit(x, x[:, :2], epochs=2, verbose=0, shuffle=False)
        for one, other in zip(_values(unbroken), _values(resumed), strict=True):
            self.assertAllEqual(one, other)

    def test_model_without_optimizer_gets_its_own_variables(self):
        saved = _trained_model(steps=3)
        checkpoints.save(self.directory, saved, 3)
        bare = keras.Sequential.from_config(saved.get_config())
        checkpoints.restore_latest(self.directory, bare)
        for one, other in zip(saved.variables, bare.variables, strict=True):
            self.assertAllEqual(one.numpy(), other.numpy())

    def test_no_folder_means_no_checkpoint(self):
        model = _new_model()
        missing = self.directory / "missing"
        self.assertIsNone(checkpoints.restore_latest(missing, model))

    def test_keeps_the_newest_only(self):
        model = _trained_model(steps=1)
        for epoch in range(1, 6):
            checkpoints.save(self.directory, model, epoch, keep=2)
        self.assertEqual(
            sorted(os.listdir(self.directory)),
            ["checkpoint-000004.npz", "checkpoint-000005.npz"],
        )

    @parameterized.named_parameters(
        ("truncated", _truncate),
        ("bit_flipped", _flip_bit_of_array),
        ("zero_length", lambda path: path.write_bytes(b"")),
        ("not_an_archive", lambda path: path.write_bytes(b"abc" * 1000)),
        ("no_array", lambda path: _rewrite_without(path, "0002.npy")),
        ("no_content", lambda path: _rewrite_without(path, "checkpoint.json")),
    )
    def test_damaged_is_reported_and_skipped(self, damage):
        older = _trained_model(steps=2)
        checkpoints.save(self.directory, older, 2)
        newest = checkpoints.save(self.directory, _trained_model(steps=3), 3)
        damage(newest.path)
        fresh = _new_model()
        with self.assertLogs("tfvae.checkpoints", "WARNING") as logs:
            found = checkpoints.restore_latest(self.directory, fresh)
        self.assertIn("damaged checkpoint", logs.output[0])
        self.assertIn(str(newest.path), logs.output[0])
        self.assertEqual(found.epoch, 2)
        for one, other in zip(_values(older), _values(fresh), strict=True):
            self.assertAllEqual(one, other)

    def test_model_is_untouched_when_all_are_damaged(self):
        saved = checkpoints.save(self.directory, _trained_model(steps=3), 3)
        # The last array is damaged: those before it are fine.
        _rewrite_without(saved.path, "0008.npy")
        fresh = _trained_model(steps=1)
        before = _values(fresh)
        with self.assertLogs("tfvae.checkpoints", "WARNING"):
            self.assertIsNone(checkpoints.restore_latest(self.directory, fresh))
        for one, other in zip(before, _values(fresh), strict=True):
            self.assertAllEqual(one, other)

    def test_flip_of_any_bit_is_detected_or_harmless(self):
        saved = _trained_model(steps=1)
        path = checkpoints.save(self.directory, saved, 1).path
        intact = path.read_bytes()
        rng = np.random.default_rng(0)
        fresh = _new_model()
        detected = 0
        for position in rng.integers(len(intact), size=200):
            data = bytearray(intact)
            data[position] ^= 1 << rng.integers(8)
            path.write_bytes(bytes(data))
            with mock.patch.object(checkpoints._logger, "warning") as warning:
                found = checkpoints.restore_latest(self.directory, fresh)
            if found is None:
                detected += 1
                warning.assert_called_once()
            else:
                for one, other in zip(
                    _values(saved), _values(fresh), strict=True
                ):
                    self.assertAllEqual(one, other)
        self.assertGreater(detected, 100)

    @parameterized.parameters("os.fsync", "os.replace")
    def test_kill_while_writing_leaves_the_one_before(self, moment):
        older = _trained_model(steps=2)
        checkpoints.save(self.directory, older, 2)
        with mock.patch(moment, side_effect=KeyboardInterrupt):
            with self.assertRaises(KeyboardInterrupt):
                checkpoints.save(self.directory, _trained_model(steps=3), 3)
        # What a kill leaves that nothing can clean up after.
        (self.directory / "checkpoint-000003.npz.partial").write_bytes(b"cut")
        fresh = _new_model()
        found = checkpoints.restore_latest(self.directory, fresh)
        self.assertEqual(found.epoch, 2)
        checkpoints.save(self.directory, fresh, 3)
        self.assertEmpty(list(self.directory.glob("*.partial")))

    def test_checkpoint_of_another_model_is_an_error(self):
        checkpoints.save(self.directory, _trained_model(steps=1, units=2), 1)
        other = _trained_model(steps=1, units=3)
        before = _values(other)
        with self.assertRaisesRegex(ValueError, r"must fit the model.*kernel"):
            checkpoints.restore_latest(self.directory, other)
        for one, two in zip(before, _values(other), strict=True):
            self.assertAllEqual(one, two)

    @parameterized.parameters(None, 0)
    def test_checkpoints_with_log_joints_are_restored(self, in_memory):
        model = tiny.make(states_in_memory=in_memory)
        index = tf.constant([1, 4])
        model.states.scatter(index, model.states.gather(index + 1))
        visited = np.zeros(tiny.NUM_DATA, bool)
        visited[[1, 5]] = True
        log_joints = np.full((tiny.NUM_DATA, tiny.NUM_STATES), -np.inf)
        log_joints[visited] = np.arange(tiny.NUM_STATES)
        packed = model.states.gather(tf.range(tiny.NUM_DATA)).packed.numpy()
        saved = checkpoints.save(self.directory, model, 3)
        _rewrite_with_log_joints(saved.path, np.float32(log_joints))
        fresh = tiny.make(states_in_memory=in_memory, seed=5)
        found = checkpoints.restore_latest(self.directory, fresh)
        self.assertEqual(found.epoch, 3)
        states = fresh.states.gather(tf.range(tiny.NUM_DATA))
        self.assertAllEqual(states.packed, packed)
        self.assertAllEqual(states.visited, visited)

    def test_full_disk_is_reported_before_writing(self):
        model = _trained_model(steps=1)
        usage = shutil.disk_usage(self.directory)._replace(free=1000)
        with mock.patch("shutil.disk_usage", return_value=usage):
            with self.assertRaisesRegex(
                OSError, rf"{self.directory} needs [\d,]+ bytes, but only 1,000"
            ):
                checkpoints.save(self.directory, model, 1)
        self.assertEmpty(os.listdir(self.directory))

    def test_checkpoint_bytes_is_the_size_of_the_arrays(self):
        model = _trained_model(steps=1)
        saved = checkpoints.save(self.directory, model, 1)
        arrays = sum(np.asarray(value).nbytes for value in _values(model))
        needed = checkpoints.checkpoint_bytes(model)
        self.assertBetween(needed, arrays, saved.path.stat().st_size)

    def test_callback_saves_at_its_intervals_and_at_the_end(self):
        model = _new_model()
        epochs = iter(range(100))
        callback = checkpoints.SaveCheckpoints(
            self.directory, every=2, keep=9, extra=lambda: {"n": next(epochs)}
        )
        x = np.ones((4, 3), np.float32)
        model.fit(x, x[:, :2], epochs=5, verbose=0, callbacks=[callback])
        self.assertEqual(
            sorted(os.listdir(self.directory)),
            [f"checkpoint-00000{epoch}.npz" for epoch in (2, 4, 5)],
        )
        found = checkpoints.restore_latest(self.directory, _new_model())
        self.assertEqual(found.extra, {"n": 2})

    def test_callback_checks_its_intervals(self):
        with self.assertRaisesRegex(ValueError, "`(every|keep)` must be"):
            checkpoints.SaveCheckpoints(self.directory, every=0)

    def test_keep_must_be_positive(self):
        with self.assertRaisesRegex(ValueError, "`keep` must be an integer"):
            checkpoints.save(self.directory, _new_model(), 1, keep=0)


class _Stored(keras.Model):
    """Has weights that all ranks share, and rows in memory or "on disk"."""

    ranks = ONE_PROCESS

    def __init__(self, rows: np.ndarray, is_on_disk: bool = False):
        super().__init__()
        self.probs = self.add_weight((4,), name="probs")
        self._arrays = {}
        values = np.broadcast_to(rows[:, None, None], [len(rows), 2, 1])
        if is_on_disk:
            self._arrays = {"packed": values.astype(np.float32)}
        else:
            self.packed = self.add_weight(values.shape, name="packed")
            self.packed.assign(values)
        self.late = self.add_weight((), name="late")
        self.built = True

    def row_variables(self):
        return [] if self._arrays else [self.packed]

    def arrays_on_disk(self):
        return self._arrays

    @property
    def rows(self):
        found = self._arrays.get("packed")
        found = self.packed.numpy() if found is None else found
        return found[:, 0, 0]


class RanksTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir())

    def _save(self, size, epoch=1, value=0, on_disk=()) -> None:
        """Saves 11 rows of some ranks, or of one process.

        Args:
          size: The number of ranks.
          epoch: Number of the epoch.
          value: What is added to the number of each row.
          on_disk: The ranks that have their rows on disk.
        """

        def save(ranks):
            rows = value + np.arange(11)[ranks.rows(11)]
            model = _Stored(rows, ranks.rank in on_disk)
            model.ranks = ranks
            model.probs.assign([0.1 * epoch] * 4)
            model.late.assign(epoch)
            checkpoints.save(
                self.directory, model, epoch, {"rank": ranks.rank}, keep=2
            )

        if size == 1:
            return save(ONE_PROCESS)
        rank_threads.run(size, save)

    def _restored(self, size, on_disk=()) -> list[tuple]:
        """Returns the numbers of rows and pi of each rank."""

        def restore(ranks):
            rows = 50 + np.arange(11)[ranks.rows(11)]
            model = _Stored(rows, ranks.rank in on_disk)
            model.ranks = ranks
            found = checkpoints.restore_latest(self.directory, model)
            self.assertEqual(found.extra, {"rank": 0})
            self.assertEqual(float(model.late), found.epoch)
            return model.rows, model.probs.numpy()

        if size == 1:
            return [restore(ONE_PROCESS)]
        return rank_threads.run(size, restore)

    @parameterized.parameters((2, 2), (3, 2), (2, 1), (1, 2))
    def test_rows_are_dealt_to_another_number_of_ranks(self, saved, restored):
        self._save(saved, epoch=3)
        found = self._restored(restored)
        for rank, (rows, probs) in enumerate(found):
            self.assertAllEqual(rows, np.arange(11)[rank::restored])
            self.assertAllClose(probs, [0.3] * 4)

    @parameterized.parameters(
        (1, [0], 1, []),
        (1, [], 1, [0]),
        (2, [0, 1], 2, [0, 1]),
        (2, [1], 2, [0]),
        (2, [0], 2, [0, 1]),
        (3, [0, 1, 2], 2, [0, 1]),
        (2, [0, 1], 3, []),
        (1, [0], 2, [0, 1]),
        (2, [0], 1, [0]),
    )
    def test_rows_are_restored_wherever_they_are(
        self, saved, saved_on_disk, restored, on_disk
    ):
        self._save(saved, epoch=3, on_disk=saved_on_disk)
        with mock.patch.object(checkpoints, "_COPIED_BYTES", 16):
            found = self._restored(restored, on_disk)
        for rank, (rows, probs) in enumerate(found):
            self.assertAllEqual(rows, np.arange(11)[rank::restored])
            self.assertAllClose(probs, [0.3] * 4)

    def test_room_for_the_files_of_all_ranks_is_checked(self):
        usage = shutil.disk_usage(self.directory)
        with mock.patch(
            "shutil.disk_usage", return_value=usage._replace(free=0)
        ):
            with self.assertRaisesRegex(OSError, "needs 1,048,684 bytes"):
                self._save(2, on_disk=[1])
        self.assertEmpty(os.listdir(self.directory))

    def test_keeps_the_newest_only_of_any_number_of_ranks(self):
        for epoch, size in ((1, 3), (2, 2), (3, 2)):
            self._save(size, epoch)
        self.assertCountEqual(
            os.listdir(self.directory),
            [
                f"{name}.npz"
                for epoch in (2, 3)
                for name in (
                    f"checkpoint-00000{epoch}",
                    f"rows-00000{epoch}-0-of-2",
                    f"rows-00000{epoch}-1-of-2",
                )
            ],
        )

    @parameterized.parameters(
        "rows-000002-1-of-2.npz", "rows-000002-0-of-2.npz"
    )
    def test_ranks_agree_on_what_is_undamaged_for_all(self, name):
        self._save(2, 1, value=0)
        self._save(2, 2, value=20)
        _truncate(self.directory / name)
        with self.assertLogs("tfvae.checkpoints", "WARNING") as logs:
            found = self._restored(2)
        self.assertLen(logs.output, 1)
        for rank, (rows, probs) in enumerate(found):
            self.assertAllEqual(rows, np.arange(11)[rank::2])
            self.assertAllClose(probs, [0.1] * 4)

    def test_rows_without_a_checkpoint_do_not_count(self):
        self._save(2, 1)
        self._save(2, 2, value=20)
        (self.directory / "checkpoint-000002.npz").unlink()
        self.assertAllEqual(self._restored(2)[1][0], np.arange(11)[1::2])

    def test_own_parts_of_the_data_need_the_same_number_of_ranks(self):
        def save(ranks):
            model = _Stored(np.zeros((9, 2)[ranks.rank]))
            model.ranks = ranks
            checkpoints.save(self.directory, model, 1)

        rank_threads.run(2, save)
        with self.assertRaisesRegex(
            ValueError, r"by the 2 ranks .* \[9, 2\] .* \[6, 5\], got 1"
        ):
            self._restored(1)


if __name__ == "__main__":
    tf.test.main()
