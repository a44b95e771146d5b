# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pathlib
import re

from absl.testing import absltest

import tfvae


class PackageTest(absltest.TestCase):
    def test_every_public_name_is_there(self):
        for name in tfvae.__all__:
            self.assertTrue(hasattr(tfvae, name), name)

    def test_packaging_reads_the_same_version(self):
        # setup.py reads the version from the source: it can not import it.
        text = pathlib.Path(tfvae.__file__).read_text()
        found = re.search(r'^__version__ = "([^"]+)"$', text, re.MULTILINE)
        self.assertEqual(found.group(1), tfvae.__version__)

    def test_every_source_file_names_the_licence(self):
        root = pathlib.Path(__file__).parents[1]
        for folder in ("tfvae", "tools", "tests"):
            for path in (root / folder).rglob("*.py"):
                self.assertStartsWith(
                    path.read_text(), "# SPDX-License-Identifier: Apache-2.0\n"
                )


if __name__ == "__main__":
    absltest.main()
