"""`flipback explain`: what happened in an incident, or to a flag, and why."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.options import config_option

if TYPE_CHECKING:
    from agent.views.explain import Explanation


@click.command("explain")
@click.argument("what", metavar="INCIDENT|FLAG")
@config_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(what: str, path: Path, as_json: bool) -> int:
    """Show what a flag is now, since when and by whom; then an incident from beginning to end, with its evidence.

    For a FLAG (or ENVIRONMENT/FLAG) that is its newest flip, and what came after; without a flip its newest trouble,
    and why nothing was done. Reads the audit log in Kafka, and the ledger in the state directory where there is one;
    needs no running process. Without Kafka it shows what the ledger holds, and ends with 1.
    """
    import asyncio

    import msgspec

    from agent.config.load import load
    from agent.executor.local_ledger import local_events
    from agent.views.explain import NothingKnown, explain, read_audit
    from agent.views.explanation_lines import explanation_lines
    from streams.errors import StreamsError

    def undo(incident: str) -> str:
        return f"flipback restore {incident} -c {shlex.quote(str(path))} --reason ..."

    def show(found: Explanation, *, alone: bool = False) -> None:
        if as_json:
            click.echo(msgspec.json.encode(found))
        else:
            click.echo("\n".join(explanation_lines(found, time.time(), undo, alone=alone)))

    config = load(path)
    local = local_events(config)
    try:
        log = asyncio.run(read_audit(config))
    except StreamsError:
        with contextlib.suppress(NothingKnown):
            found = explain([], what, (), local.events)
            click.echo("flipback: Kafka could not be read: this is of the ledger of this machine alone", err=True)
            show(found, alone=True)
        raise
    show(explain(log.events, what, log.flags, local.pending))
    return 0
