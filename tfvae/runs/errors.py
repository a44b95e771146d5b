# SPDX-License-Identifier: Apache-2.0
"""Errors and reasons with which runs end, for the command line."""

from __future__ import annotations


class UnexpectedError(Exception):
    """An error that the user has not caused."""


class StoppedError(Exception):
    """A run has ended before its work was done, with all results on disk.

    Attributes:
      code: The exit code of the command.
    """

    def __init__(self, why: str, code: int = 1) -> None:
        """Takes the reason, in one line, and the exit code."""
        super().__init__(why)
        self.code = code
