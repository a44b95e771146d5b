# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import io
from unittest import mock

from absl.testing import absltest

from benchmarks import ranks


class RanksTest(absltest.TestCase):
    def test_exchange_takes_its_hops_and_its_bytes(self):
        # Two ranks: two hops, and half of the bytes twice.
        self.assertAlmostEqual(ranks.latency(2, 1e6, 1e-3, 1e9), 3e-3)
        self.assertAlmostEqual(ranks.latency(64, 0.0, 1e-3, 1e9), 12e-3)

    def test_projection_is_of_compute_and_exchanges(self):
        setting = ranks.Setting(8, 4, 100, 25, 8)
        # Free messages scale perfectly; 5 exchanges of a batch do not.
        self.assertAlmostEqual(ranks.projected(4, setting, 1e-3, 0.0), 4000.0)
        rate = ranks.projected(4, setting, 1e-3, 0.02)
        self.assertAlmostEqual(rate, 4 * 100 / (0.1 + 0.1))

    def test_kinds_alternate_and_medians_are_printed(self):
        calls = []

        def measure(name, kind, options):
            calls.append(kind)
            rate = {"one process": 100.0, "1": 60.0, "2": 110.0}[kind]
            several = kind == "2"
            return {
                "per_second": rate,
                "e_step": 0.5,
                "m_step": 0.25,
                "messages": 0.01 * several,
                "exchanges": 17.0 * several,
                "bytes": 17e3 * several,
            }

        out = io.StringIO()
        with (
            mock.patch.object(ranks, "measure", measure),
            contextlib.redirect_stdout(out),
        ):
            rows = ranks.main(["--settings=house", "--ranks=1,2"])
        self.assertEqual(calls, ["one process", "1", "2"])
        self.assertEqual([row["ranks"] for row in rows], calls)
        self.assertRegex(
            out.getvalue(), r"\n2 +110 +1\.10 +500\.0 +250\.0 +10\.0 +17\.0 +17"
        )
        self.assertIn("projected for 64 ranks", out.getvalue())


if __name__ == "__main__":
    absltest.main()
