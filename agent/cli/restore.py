"""`flipback restore`: put the flags of an incident back as they were before it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.confirm import ReasonParam, confirm, user

if TYPE_CHECKING:
    from agent.backends.contract import FlagState, Outcome
    from agent.config.model import Config
    from agent.errors import FlipbackError
    from agent.ledger.entry import Entry
    from agent.ledger.ledger import Ledger


@click.command("restore")
@click.argument("incident")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--reason", type=ReasonParam(optional=True), default="", help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(incident: str, path: Path, reason: str, yes: bool) -> int:
    """Put the flag of INCIDENT, or each of its flags, back as it was before the flip, if nobody changed it since.

    Needs neither Kafka nor a running agent, but the state directory of the executor and access to the flag. The
    monitor goes on judging: if the fault is still there, the flag is flipped again.
    """
    import asyncio
    import os

    from agent.config.load import load
    from agent.control.restore import flipped
    from agent.errors import RestoreRefused
    from agent.executor.build import LEDGER, open_ledger

    config = load(path)
    if not os.path.lexists(config.state_dir / LEDGER):
        # Opening it would make it, in a place where no executor has been.
        raise RestoreRefused(
            f"there is no ledger in state_dir {config.state_dir.absolute()}, or none that you may see; call this where "
            "the executor runs, as its user, with its configuration"
        )
    ledger = open_ledger(config)
    entries = flipped(ledger, incident)
    click.echo("\n".join(_summary(entry) for entry in entries))
    if not yes:
        confirm("Put it back?" if len(entries) == 1 else "Put them back?")
    refused = []
    for entry, outcome in asyncio.run(_restore(config, ledger, entries, reason, user())):
        error = _told(entry, outcome)
        refused += [] if error is None else [error]
    return max((error.exit_code for error in refused), default=0)


async def _restore(
    config: Config, ledger: Ledger, entries: list[Entry], reason: str, by: str
) -> list[tuple[Entry, tuple[Outcome, FlagState] | FlipbackError]]:
    """Each by itself: what stops one stops no other."""
    import asyncio
    import time

    from agent.control.restore import restore
    from agent.errors import FlipbackError
    from agent.executor.build import make_backends

    backends = make_backends(config, {entry.command.backend for entry in entries})
    found: list[tuple[Entry, tuple[Outcome, FlagState] | FlipbackError]] = []
    try:
        for entry in entries:
            try:
                found.append((entry, await restore(ledger, backends, entry, reason=reason, by=by, now=time.time)))
            except FlipbackError as error:
                found.append((entry, error))
    finally:
        await asyncio.gather(*(backend.close() for backend in backends.values()))
    return found


def _told(entry: Entry, result: tuple[Outcome, FlagState] | FlipbackError) -> FlipbackError | None:
    from agent.backends.contract import Outcome
    from agent.errors import FlipbackError

    name = f"{entry.command.environment}/{entry.command.flag}"
    if isinstance(result, FlipbackError):
        click.echo(f"flipback: {name}: {result}", err=True)
        return result
    outcome, state = result
    found = "restored" if outcome is Outcome.APPLIED else "as it was already"
    click.echo(f"{found}: {name} is {_words(state)}")
    return None


def _summary(entry: Entry) -> str:
    from agent.control.restore import orders
    from agent.views.wording import sentence
    from detectors.conditions.units import shown

    made, seen = entry.command, entry.command.evidence
    before = _words(entry.opened.snapshot.state)
    moment = datetime.fromtimestamp(entry.events[-1].time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    why = (
        "by hand, " + "; then ".join(f"{by}: {reason}" for by, reason in orders(entry))
        if made.by_hand
        else f"{made.trigger}: {seen.metric} of {seen.scope} was {shown(seen.metric, seen.value)}, "
        f"limit {seen.op} {shown(seen.metric, seen.threshold)}, {seen.samples:,} samples"
    )
    return (
        f"incident {made.incident}\n"
        f"  {made.environment}/{made.flag} of {made.service}: {before} -> {made.target!r}\n"
        f"  {why}\n"
        f"  last at {moment}: {sentence(entry.events[-1])}"
    )


def _words(state: FlagState) -> str:
    if state.variant is not None:
        return repr(state.variant)
    return "different variants, as its rules say" if state.percent is None else f"at {state.percent:g} %"
