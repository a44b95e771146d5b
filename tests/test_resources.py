# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from unittest import mock

from absl.testing import absltest, parameterized

from tfvae import resources


class CheckMemoryTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        memory = mock.Mock(available=2 * 10**9)
        self.enter_context(
            mock.patch("psutil.virtual_memory", return_value=memory)
        )

    def test_what_fits_exactly_passes(self):
        resources.check_memory(2 * 10**9, "it", "take less")

    def test_one_byte_more_is_reported_with_the_remedy(self):
        with self.assertRaisesRegex(
            ValueError,
            "^it would take 2.0 GB of memory, but only 2.0 GB are free; "
            "take less$",
        ):
            resources.check_memory(2 * 10**9 + 1, "it", "take less")


class CheckDiskSpaceTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = self.create_tempdir().full_path
        usage = mock.Mock(free=2**20 + 1000)
        self.disk_usage = self.enter_context(
            mock.patch("shutil.disk_usage", return_value=usage)
        )

    def test_what_fits_beside_the_spare_bytes_passes(self):
        resources.check_disk_space(self.folder, 1000, "writing")
        self.disk_usage.assert_called_once_with(self.folder)

    @parameterized.parameters("writing to here", "exporting to there")
    def test_one_byte_more_is_reported_with_both_sizes(self, what):
        with self.assertRaisesRegex(
            OSError,
            f"^not enough disk space: {what} needs 1,049,577 bytes, but only "
            r"1,049,576 are free$",
        ):
            resources.check_disk_space(self.folder, 1001, what)


if __name__ == "__main__":
    absltest.main()
