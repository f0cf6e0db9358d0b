"""What a person gives at the command line before something is done: a reason, and the answer to a question."""

from __future__ import annotations

from typing import Any

import click

from agent.control.person import MAX_REASON, encodable
from agent.errors import FlipbackError


class ReasonParam(click.ParamType):
    """The reason for an order. One that is too long is cut, not refused: its length must not stop a rollback."""

    name = "text"

    def __init__(self, *, optional: bool = False) -> None:
        self._optional = optional

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        reason = encodable(str(value)).strip()
        if not reason and not self._optional:
            self.fail("expected why, in a few words: it goes into the audit log", param, ctx)
        if len(reason) > MAX_REASON:
            click.echo(f"flipback: the reason was cut to its first {MAX_REASON} characters", err=True)
        return reason[:MAX_REASON]


def confirm(question: str) -> None:
    """Ask, and return only if the answer is yes. Raises FlipbackError if it is no, or if the input has ended."""
    try:
        agreed = click.confirm(question)
    except click.Abort as error:
        # Click raises Abort for an interrupt and for the end of the input alike; its context tells which.
        if isinstance(error.__context__, EOFError):
            raise FlipbackError(
                "nobody is there to answer; nothing was done; go ahead without asking by --yes"
            ) from None
        raise
    if not agreed:
        raise FlipbackError("nothing was done")
