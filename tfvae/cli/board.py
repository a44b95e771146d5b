# SPDX-License-Identifier: Apache-2.0
"""Shows the runs of a folder in a browser, live while they train.

Usage:
  tfvae board runs
  tfvae board runs --port=8800 --open

Prints an address of this machine, where a browser lists the runs below the
folder: their kind, state, progress and result, with links to report.html and
the figures. It listens on this machine alone, and only reads. Ctrl-C ends it.
"""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Sequence

from absl import flags

from tfvae.cli import console


def main(words: Sequence[str]) -> int:
    """Serves the board until it is interrupted.

    Args:
      words: Arguments of the command.

    Returns:
      The exit code: 0, 2 for a wrong argument.
    """
    values = flags.FlagValues()
    console.define_integer(
        "port", "Port (any that is free unless set).", values, 0, 65535
    )
    flags.DEFINE_boolean(
        "open", False, "Open the page in a browser.", flag_values=values
    )
    if {"--help", "-h"} & set(words):
        print(console.help_text(__doc__ or "", values))
        return 0
    try:
        folders = values(["tfvae", *words])[1:]
    except flags.Error as err:
        return console.print_error(err)
    if len(folders) != 1:
        got = " ".join(map(repr, folders)) or "none"
        return console.print_error(
            "`tfvae board` must be given one folder, as in `tfvae board "
            f"runs`, got {got}"
        )
    if not os.path.isdir(folders[0]):
        return console.print_error(
            f"the folder of runs must exist, got {folders[0]!r}"
        )
    return _serve(folders[0], values.port or 0, values.open)


def _serve(folder: str, port: int, is_opened: bool) -> int:
    from tfvae.runs import board

    try:
        server = board.Server(folder, port)
    except OSError as err:
        return console.print_error(
            f"the board of {folder!r} can not be shown at port {port}: "
            f"{err.strerror or err}"
        )
    with server:
        print(f"board of {folder}: {server.url} (Ctrl-C ends it)", flush=True)
        if is_opened:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
