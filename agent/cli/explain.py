"""`flipback explain`: what happened in an incident, or to a flag, and why."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.explain import Explanation


@click.command("explain")
@click.argument("what", metavar="INCIDENT|FLAG")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def command(what: str, path: Path, as_json: bool) -> int:
    """Tell an incident from beginning to end: verdicts, evidence, every step of the flip, and what came after.

    For a FLAG (or ENVIRONMENT/FLAG) the newest time it was in trouble, also where nothing was commanded, and why.
    Reads the audit log in Kafka; needs no running process.
    """
    import asyncio

    import msgspec

    from agent.config_load import load
    from agent.explain import explain, read_events

    found = explain(asyncio.run(read_events(load(path))), what)
    click.echo(msgspec.json.encode(found) if as_json else "\n".join(_lines(found)))
    return 0


def _lines(found: Explanation) -> list[str]:
    from agent.explain import evidence_lines, sentence

    begin = found.events[0].time
    clock = datetime.fromtimestamp(begin, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    head = f"{found.subject}, from {clock}"
    lines = [head if found.incident is None else f"{head}, incident {found.incident}"]
    if found.incident is None:
        lines += [f"  incident {name}" for name in found.incidents]
    if found.evidence is not None:
        lines += ["evidence", *(f"  {line}" for line in evidence_lines(found.evidence))]
    lines.append("what happened")
    for event in found.events:
        whom = "" if event.subject == found.subject else f"{event.subject}: "
        lines.append(f"  {event.time - begin:+9.3f} s  {whom}{sentence(event)}")
    lines += [f"put it back with `flipback restore {name} -c FILE`" for name, wrote in found.incidents.items() if wrote]
    return lines
