# SPDX-License-Identifier: Apache-2.0
"""Every command that the documents, gin files and `--help` show is accepted.

Its flags are parsed and its gin files are found; nothing runs.
"""

from __future__ import annotations

import contextlib
import importlib
import pathlib
import re
import shlex

from absl.testing import parameterized

from tfvae.cli import console
from tfvae.cli import main as cli

ROOT = pathlib.Path(__file__).parents[1]
_COMMAND = re.compile(r"^(?:\$ |#? *)?(?:\S+/)?tfvae (\w.*)$")


def _commands(text: str) -> list[str]:
    """Returns what stands behind `tfvae` in the command lines of a text."""
    text = re.sub(r"\\\n#? *", "", text)
    # The rest of a line of several commands.
    lines = [part for line in text.splitlines() for part in line.split(" && ")]
    found = [match[1] for line in lines if (match := _COMMAND.match(line))]
    return [
        one for one in found if one.split()[0] in cli.COMMANDS and "--" in one
    ]


def _sources() -> list[tuple[str, str]]:
    paths = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "gin").rglob("*.gin"),
    ]
    texts = [(p.relative_to(ROOT).as_posix(), p.read_text()) for p in paths]
    for name, (module, _) in cli.COMMANDS.items():
        doc = importlib.import_module(module).__doc__ or ""
        texts.append((f"tfvae {name} --help", doc))
    return texts


COMMANDS = sorted(
    {
        (source, command)
        for source, text in _sources()
        for command in _commands(text)
        if not command.endswith("--help")
    }
)


class CommandsTest(parameterized.TestCase):
    def test_commands_are_found_where_they_are_shown(self):
        sources = {source for source, _ in COMMANDS}
        self.assertContainsSubset(
            {
                "README.md",
                "docs/command_line.md",
                "gin/quickstart.gin",
                *(f"tfvae {name} --help" for name in cli.COMMANDS),
            },
            sources,
        )
        self.assertGreater(len(COMMANDS), 60)

    @parameterized.parameters(*COMMANDS)
    def test_command_is_accepted(self, source, command):
        del source  # Names the test.
        name, *argv = shlex.split(command, comments=True)
        argv = [one for one in argv if one != "..."]
        module = importlib.import_module(cli.COMMANDS[name][0])
        values = console.common_flags()
        if hasattr(module, "define"):
            module.define(values)
        if hasattr(module, "rewritten"):
            argv = module.rewritten(argv)
        rest = values(["tfvae", *argv])[1:]
        self.assertEmpty(rest)
        if name == "optimize" and not values.gin_file:
            self._make_earlier_files(values)
        console.check(module, values)

    def _make_earlier_files(self, values):
        """Makes what an optimisation has from the commands before."""
        folder = pathlib.Path(self.create_tempdir().full_path)
        self.enter_context(contextlib.chdir(folder))
        run_dir = folder / values.run_dir
        run_dir.mkdir(parents=True)
        (run_dir / "config.gin").touch()
        for path in values.add:
            (folder / path).touch()
