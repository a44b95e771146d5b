# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
import pathlib
import sys
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import discrete_latents
from tfvae import likelihoods, networks, tvae

MEASURES = {
    "log_likelihood": -20.0,
    "standard_error": 0.3,
    "bound": -21.0,
    "train": -18.0,
    "seconds": 5.0,
}


class DiscreteLatentsTest(tf.test.TestCase):
    def _main(self, folder, *args):
        printed = io.StringIO()
        argv = ["", f"--run_dir={folder}", "--data", "digits", *args]
        with (
            mock.patch.object(sys, "argv", argv),
            contextlib.redirect_stdout(printed),
        ):
            discrete_latents.main()
        return printed.getvalue()

    def test_what_is_there_is_not_run_again(self):
        folder = pathlib.Path(self.create_tempdir().full_path)

        def run(split, method, seed, steps):
            if method == "VIMCO":
                raise KeyboardInterrupt
            return {method: MEASURES}

        args = ("--methods", "TVAE", "VIMCO", "--sizes", "50")
        with mock.patch.object(discrete_latents, "run", run):
            with self.assertRaises(KeyboardInterrupt):
                self._main(folder, *args)
        run = mock.Mock(return_value={"VIMCO": MEASURES})
        with mock.patch.object(discrete_latents, "run", run):
            printed = self._main(folder, *args)
            again = self._main(folder, *args)
        self.assertEqual([call.args[1] for call in run.mock_calls], ["VIMCO"])
        for text in (printed, again):
            self.assertRegex(text, r"(?s)digits 50 +TVAE +-20\.00 .*VIMCO +-20")

    def test_enumeration_is_that_of_the_model(self):
        model = tvae.TVAE(
            networks.FullyConnectedDecoder(5, (4,)),
            discrete_latents.NUM_BITS,
            likelihood=likelihoods.BernoulliLikelihood(),
            num_states=8,
        )
        rng = np.random.default_rng(0)
        x = (rng.random((3, 5)) < 0.5).astype(np.float32)
        found = discrete_latents.exact(model)(x)
        self.assertAllClose(found, model.log_likelihood(x), rtol=1e-5)

    @pytest.mark.slow
    def test_every_method_runs_and_is_bounded(self):
        split = discrete_latents.digits(64)
        for method in discrete_latents.METHODS:
            for name, row in discrete_latents.run(split, method, 0, 20).items():
                self.assertLess(
                    row["bound"], row["log_likelihood"] + 0.01, name
                )
                self.assertBetween(row["log_likelihood"], -64.0, -5.0, name)


if __name__ == "__main__":
    tf.test.main()
