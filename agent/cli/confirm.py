"""The person at the command line: who it is, why something is done, and whether it is to be done."""

from __future__ import annotations

import getpass
import os
from typing import Any

import click

from agent.errors import FlipbackError

MAX_REASON = 4096
MAX_NAME = 512
"""Characters that the evidence of a command may have (agent.commands.command.Evidence)."""


def user() -> str:
    """The user's name, or such as "uid 12345": containers often run as a user that the system has no name for."""
    try:
        return _text(getpass.getuser())[:MAX_NAME]
    except (KeyError, OSError, ImportError):
        return f"uid {os.getuid()}"


class ReasonParam(click.ParamType):
    """Why something is done. One that is too long is cut: a flag must not stay on for the words about it."""

    name = "text"

    def __init__(self, *, optional: bool = False) -> None:
        self._optional = optional

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        reason = _text(str(value)).strip()
        if not reason and not self._optional:
            self.fail("expected why, in a few words: it goes into the audit log", param, ctx)
        if len(reason) > MAX_REASON:
            click.echo(f"flipback: the reason was cut to its first {MAX_REASON} characters", err=True)
        return reason[:MAX_REASON]


def confirm(question: str) -> None:
    """Ask, and go on only where the answer is yes. Raises FlipbackError where it is not."""
    try:
        agreed = click.confirm(question)
    except click.Abort as error:
        # Click hides the cause of its Abort, but an interrupt and the end of the input are not the same.
        if isinstance(error.__context__, EOFError):
            raise FlipbackError(
                "nobody is there to answer; nothing was done; go ahead without asking by --yes"
            ) from None
        raise
    if not agreed:
        raise FlipbackError("nothing was done")


def _text(value: str) -> str:
    """Text that can be written as UTF-8: of bytes that are none, an argument has lone surrogates."""
    return value.encode("utf-8", "replace").decode()
