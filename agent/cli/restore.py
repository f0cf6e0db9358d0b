"""`flipback restore`: put a flag back as it was before an incident."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from agent.backends.contract import FlagState, Outcome
    from agent.config import Config
    from agent.ledger import Entry, Ledger


@click.command("restore")
@click.argument("incident")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--reason", default="", help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(incident: str, path: Path, reason: str, yes: bool) -> None:
    """Put the flag of INCIDENT back as it was before the flip, if nobody changed it since.

    Needs neither Kafka nor a running agent, but the state directory of the executor and access to the flag. The
    monitor goes on judging: if the fault is still there, the flag is flipped again.
    """
    import asyncio
    import getpass

    from agent.backends.contract import Outcome
    from agent.config_load import load
    from agent.ledger import Ledger
    from agent.restore import flipped

    config = load(path)
    ledger = Ledger(config.state_dir / "ledger")
    entry = flipped(ledger, incident)
    click.echo(_summary(entry))
    if not yes:
        click.confirm("Put it back?", abort=True)
    outcome, state = asyncio.run(_restore(config, ledger, entry, reason, getpass.getuser()))
    found = "restored" if outcome is Outcome.APPLIED else "as it was already"
    click.echo(f"{found}: {entry.command.environment}/{entry.command.flag} is {_words(state)}")


async def _restore(config: Config, ledger: Ledger, entry: Entry, reason: str, by: str) -> tuple[Outcome, FlagState]:
    import asyncio
    import time

    from agent.flips import make_backends
    from agent.restore import restore

    backends = make_backends(config)
    try:
        return await restore(ledger, backends, entry, reason=reason, by=by, now=time.time)
    finally:
        await asyncio.gather(*(backend.close() for backend in backends.values()))


def _summary(entry: Entry) -> str:
    made, seen = entry.command, entry.command.evidence
    before = _words(entry.opened.snapshot.state)
    moment = datetime.fromtimestamp(entry.events[-1].time, UTC).isoformat(timespec="seconds")
    return (
        f"incident {made.incident}\n"
        f"  {made.environment}/{made.flag} of {made.service}: {before} -> {made.target!r}\n"
        f"  {made.trigger}: {seen.metric} of {seen.scope} was {seen.value:g}, limit {seen.op} {seen.threshold:g}, "
        f"{seen.samples} samples\n"
        f"  last step {entry.events[-1].type} at {moment}"
    )


def _words(state: FlagState) -> str:
    if state.variant is not None:
        return repr(state.variant)
    return "by its own rules" if state.percent is None else f"at {state.percent:g} %"
