# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import csv
import io
import pathlib
from unittest import mock

import keras
import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from tfvae import callbacks


def _fit(callback_list, epochs=4, initial_epoch=0):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(0.5), loss="mse")
    x = np.ones((4, 2), np.float32)
    model.fit(
        x,
        x[:, :1],
        batch_size=2,
        epochs=epochs,
        initial_epoch=initial_epoch,
        verbose=0,
        callbacks=callback_list,
    )


def _observe(epoch):
    return callbacks.Observation(
        {"psnr": 20.0 + epoch}, {"restored": np.full((4, 4, 1), 0.5)}
    )


class _Terminal(io.StringIO):
    def isatty(self):
        return True


class CallbacksTest(tf.test.TestCase, parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempdir().full_path)

    def test_observes_at_intervals_and_at_the_last_epoch(self):
        seen = mock.Mock(side_effect=_observe)
        _fit([callbacks.Observe(seen, every=2)], epochs=5)
        self.assertEqual([call.args[0] for call in seen.mock_calls], [2, 4, 5])

    def test_observe_checks_its_interval(self):
        with self.assertRaisesRegex(ValueError, "`every` must be an integer"):
            callbacks.Observe(_observe, every=0)

    def test_table_has_a_row_per_epoch_and_what_was_observed(self):
        table = callbacks.MetricsTable(self.folder / "metrics.csv")
        _fit([callbacks.Observe(_observe, every=2), table])
        with open(self.folder / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([row["epoch"] for row in rows], list("1234"))
        self.assertEqual(
            [row["psnr"] for row in rows], ["", "22.0", "", "24.0"]
        )
        self.assertEqual(
            list(rows[0]), ["epoch", "loss", "psnr", "learning_rate", "seconds"]
        )
        self.assertEqual(float(rows[0]["loss"]), table.rows[0]["loss"])

    def test_table_resumed_from_rows_equals_the_unbroken_one(self):
        unbroken = callbacks.MetricsTable(self.folder / "unbroken.csv")
        unbroken.rows = [
            {"epoch": 1, "bound": 0.1},
            {"epoch": 2, "bound": 0.2, "psnr": 3.0},
        ]
        unbroken._write()
        resumed = callbacks.MetricsTable(
            self.folder / "resumed.csv", unbroken.rows[:1]
        )
        self.assertEqual(
            (self.folder / "resumed.csv").read_text(), "epoch,bound\n1,0.1\n"
        )
        resumed.rows.append(unbroken.rows[1])
        resumed._write()
        self.assertEqual(
            (self.folder / "resumed.csv").read_text(),
            (self.folder / "unbroken.csv").read_text(),
        )

    def test_tensorboard_log_holds_scalars_pictures_and_texts(self):
        observe = callbacks.Observe(_observe, every=2)
        log = callbacks.TensorBoardLog(
            self.folder, observe, {"config": "a = 1"}
        )
        _fit([observe, log], epochs=2)
        tags = []
        for path in self.folder.glob("events*"):
            for record in tf.data.TFRecordDataset(str(path)):
                event = tf.compat.v1.Event.FromString(record.numpy())
                tags += [(v.tag, event.step) for v in event.summary.value]
        self.assertIn(("config", 0), tags)
        self.assertIn(("loss", 1), tags)
        self.assertIn(("psnr", 2), tags)
        self.assertIn(("restored", 2), tags)
        self.assertNotIn(("restored", 1), tags)

    def test_plain_progress_reports_first_and_last_epoch(self):
        stream = io.StringIO()
        _fit([callbacks.Progress(stream)], epochs=3)
        lines = stream.getvalue().splitlines()
        self.assertLen(lines, 2)
        self.assertStartsWith(lines[0], "epoch 1/3")
        self.assertStartsWith(lines[1], "epoch 3/3")
        self.assertEndsWith(lines[1], "0:00 left")

    def test_terminal_gets_a_line_per_epoch_and_a_bar(self):
        stream = _Terminal()
        _fit([callbacks.Progress(stream)], epochs=3, initial_epoch=1)
        text = stream.getvalue()
        self.assertIn("epoch 2/3", text)
        self.assertIn("epoch 3/3", text)
        self.assertNotIn("epoch 1/3", text)
        # How often the bar moves is a matter of time.
        self.assertRegex(text, r"epoch 3:.* \d/2 \[")

    @parameterized.parameters(
        (59.6, "1:00 elapsed, 0:10 left"),
        (3599.0, "59:59 elapsed, 0:10 left"),
        (3661.0, "1:01:01 elapsed, 0:10 left"),
    )
    def test_progress_line_reports_the_time(self, elapsed, expected):
        line = callbacks.progress_line(3, 13, {}, elapsed, 1.0)
        self.assertEqual(line, f"epoch  3/13  {expected}")

    def test_progress_line_leaves_out_what_is_unknown(self):
        logs = {"bound": -3.25, "psnr": float("nan"), "loss": 1.0}
        line = callbacks.progress_line(1, 1, logs, 0.0, 0.0)
        self.assertEqual(
            line, "epoch 1/1  bound -3.250  0:00 elapsed, 0:00 left"
        )


class MeasureStepsTest(tf.test.TestCase, parameterized.TestCase):
    @parameterized.parameters(
        # A step a second, from 0 on: the first one is left out.
        (2.0, 0, [(3, 1.0)]),
        (2.0, 2, [(7, 1.0)]),
        (4.0, 0, [(5, 1.0)]),  # In the third epoch.
        (99.0, 0, []),
    )
    def test_steps_after_the_first_are_measured_once(
        self, least, initial_epoch, expected
    ):
        found = []
        measure = callbacks.MeasureSteps(
            lambda *numbers: found.append(numbers), least
        )
        with mock.patch("time.perf_counter", side_effect=range(99)):
            measure.set_params({"steps": 2})
            for epoch in range(initial_epoch, 5):
                measure.on_epoch_begin(epoch)
                for batch in range(2):
                    measure.on_train_batch_end(batch)
        self.assertEqual(found, expected)


if __name__ == "__main__":
    tf.test.main()
