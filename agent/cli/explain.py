"""`flipback explain`: what happened in an incident, or to a flag, and why."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.events.cloudevents import Event
    from agent.views.explain import Explanation


@click.command("explain")
@click.argument("what", metavar="INCIDENT|FLAG")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
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
    from streams.errors import StreamsError

    def show(found: Explanation, *, alone: bool = False) -> None:
        if as_json:
            click.echo(msgspec.json.encode(found))
        else:
            click.echo("\n".join(_lines(found, path, time.time(), alone=alone)))

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


def _lines(found: Explanation, path: Path, at: float, *, alone: bool) -> list[str]:
    from agent.views.in_order import made_at
    from agent.views.wording import evidence_lines, flag_line

    undo = {name: f"flipback restore {name} -c {shlex.quote(str(path))} --reason ..." for name in found.incidents}
    lines = [] if found.now is None else [f"{found.subject} {flag_line(found.now, at, alone=alone)}"]
    now = found.now
    if now is not None and now.incident is not None:
        lines.append(f"  by incident {now.incident}")
        if now.restorable and now.incident in undo:
            lines.append(f"  undo: {undo[now.incident]}")
    if not found.events:
        return [*lines, f"{found.subject}: the audit log has nothing of it: no trigger of it has changed its verdict"]
    begin = made_at(found.events[0])
    head = f"{found.subject}, from {_clock(begin)}"
    lines.append(head if found.incident is None else f"{head}, incident {found.incident}")
    lines += [f"  another incident: {name}" for name in found.incidents if name != found.incident]
    if found.evidence is not None:
        lines += ["evidence", *(f"  {line}" for line in evidence_lines(found.evidence))]
    lines += ["what happened", *timeline(found.events, found.subject, begin)]
    if found.since:
        lines += ["since then", *timeline(found.since, found.subject, begin)]
    if found.folded:
        lines.append(f"later changes of verdicts between ok and unknown: {found.folded}")
    known = None if now is None else now.incident
    # Where the flag's state is not known, each flip is offered; restore itself refuses what was changed since.
    offered = [name for name, wrote in found.incidents.items() if wrote and name != known]
    return [*lines, *(f"put it back with: {undo[name]}" for name in offered if now is None)]


def timeline(events: Sequence[Event], subject: str, begin: float) -> Iterator[str]:
    from agent.views.in_order import is_verdict, made_at
    from agent.views.wording import sentence
    from detectors.missing.unknown_reason import clock

    for event in events:
        whom = "" if event.subject == subject else f"{event.subject}: "
        # A verdict is made when its second is complete, some seconds later.
        until = f", evidence up to {clock(int(event.time))}Z" if is_verdict(event) else ""
        yield f"  {made_at(event) - begin:+9.3f} s  {whom}{sentence(event)}{until}"


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
