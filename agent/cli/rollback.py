"""`flipback rollback`: make a flag safe by hand."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.confirm import ReasonParam, confirm, user

if TYPE_CHECKING:
    from agent.config.flags import Flag
    from agent.config.model import Config
    from agent.events.cloudevents import Event
    from agent.executor.result import ExecutionResult

_NOT_DONE = 4
_MAYBE_UNSEEN = 6
_SHOW_EVERY_S = 5.0
_LONGEST = 500


@click.command("rollback")
@click.argument("flag")
@click.option(
    "-c", "--config", "path", required=True, type=click.Path(path_type=Path), help="Configuration, YAML or TOML."
)
@click.option("--direct", is_flag=True, help="From here: needs neither Kafka nor a running agent.")
@click.option("--environment", help="Where FLAG is managed in several.")
@click.option("--reason", required=True, type=ReasonParam(), help="Why, for the audit log.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(flag: str, path: Path, direct: bool, environment: str | None, reason: str, yes: bool) -> int:
    """Set FLAG, and those that are made safe together with it, to their safe variants for everyone.

    Through Kafka it needs the signing key, and an executor carries it out. With --direct it needs the state directory
    of the executor and access to the flag, and nothing else. Either way neither the cooldown nor the limits nor a halt
    nor shadow mode stops it.

    Exit status 4 where a flag was not made safe, 6 where all are and something may keep applications from seeing it.
    """
    import asyncio

    from agent.commands.keys import load_private
    from agent.config.load import load

    config = load(path)
    flags = _chosen(config, flag, environment)
    if not direct:
        # What cannot be signed need not be asked about.
        load_private(config.signing_key)
    for chosen in flags:
        click.echo(f"{chosen.environment}/{chosen.flag} in {chosen.backend!r}: to {chosen.safe!r} for everyone")
    if not yes:
        confirm("Roll it back?" if len(flags) == 1 else "Roll them back?")
    run = _direct if direct else _by_kafka
    return asyncio.run(run(config, flags, reason, user()))


def _chosen(config: Config, name: str, environment: str | None) -> list[Flag]:
    """The flag, then the others of its group."""
    managed = {(flag.environment, flag.flag): flag for flag in config.flags}
    found = [flag for (where, key), flag in managed.items() if key == name and environment in (None, where)]
    if not found:
        known = ", ".join(sorted(f"{where}/{key}" for where, key in managed))
        raise click.BadParameter(f"{name!r} is not managed; managed are {known}", param_hint="FLAG")
    if len(found) > 1:
        places = ", ".join(flag.environment for flag in found)
        raise click.BadParameter(f"{name!r} is managed in {places}; name one", param_hint="--environment")
    return [found[0], *(managed[found[0].environment, companion] for companion in found[0].together)]


async def _direct(config: Config, flags: list[Flag], reason: str, by: str) -> int:
    from agent.backends.contract import Outcome
    from agent.control.rollback import direct
    from agent.errors import BackendError

    status = 0
    async for flag, result, against in direct(config, flags, reason=reason, by=by):
        name = f"{flag.environment}/{flag.flag}"
        if isinstance(result, BackendError):
            click.echo(f"flipback: {name}: {result}", err=True)
            status = _NOT_DONE
            continue
        safe = result.status is not None and result.status.safe
        incident = "" if result.command is None else f", incident {result.command.incident}"
        if result.outcome is Outcome.APPLIED and safe:
            click.echo(f"rolled back: {name} is {flag.safe!r}, written and read back{incident}")
        elif safe:
            click.echo(
                f"safe already: {name} is {flag.safe!r}; nothing was written ({result.outcome}: {result.detail})"
            )
        else:
            click.echo(f"flipback: {name}: {result.outcome}: {_undone(result, flag.backend)}", err=True)
            status = _NOT_DONE
            # What keeps applications from seeing a flip is no news where there is none.
            continue
        for problem in against.problems:
            click.echo(f"flipback: {name}: LOOK whether applications see it: {problem}", err=True)
            status = status or _MAYBE_UNSEEN
        for doubt in against.doubts:
            click.echo(f"flipback: {name}: to be looked at: {doubt}", err=True)
    return status


def _undone(result: ExecutionResult, backend: str) -> str:
    """Why a flag was not made safe, and what to do."""
    from agent.backends.contract import Outcome
    from agent.ledger.entry import UNUSABLE

    why = result.detail or "not done"
    if why.startswith(UNUSABLE):
        todo = f"make room or mend the rights there and try again, or turn the flag off in {backend!r} itself"
        return f"{why}; nothing was written; {todo}"
    return f"{why}; {'then' if result.outcome is Outcome.REJECTED else 'look at the flag and'} try again"


async def _by_kafka(config: Config, flags: list[Flag], reason: str, by: str) -> int:
    import asyncio
    from datetime import UTC, datetime

    from agent.commands.command import Reason
    from agent.control.rollback import DIRECT_WHERE, FINAL, WAIT_S, by_kafka
    from agent.errors import FlipbackError
    from agent.events import cloudevents as events
    from agent.views.wording import sentence
    from streams.errors import StreamsError

    done = {
        events.FLAG_VERIFIED: "rolled back",
        events.FLAG_UNVERIFIED: "rolled back, by the word of the backend; it cannot be read back",
        events.FLAG_ALREADY: "safe already",
    }
    begun = time.monotonic()

    def step(event: Event) -> None:
        click.echo(f"  {time.monotonic() - begun:5.2f} s  {event.subject}: {sentence(event)}")

    async def show_that_it_lasts() -> None:
        while True:
            await asyncio.sleep(_SHOW_EVERY_S)
            click.echo(f"  {time.monotonic() - begun:5.2f} s  waiting for an executor")

    until = "nothing was sent"

    def sent(expires: float) -> None:
        nonlocal until
        clock = datetime.fromtimestamp(math.ceil(expires), UTC).strftime("%H:%M:%S")
        until = f"the order expires at {clock}Z and is void then"

    def nobody(why: str) -> None:
        click.echo(f"flipback: {why}; {until}. Do not wait: use --direct, {DIRECT_WHERE}", err=True)

    click.echo(f"sending; an executor has {WAIT_S:.0f} s")
    showing = asyncio.create_task(show_that_it_lasts())
    try:
        last = await by_kafka(config, flags, reason=reason, by=by, step=step, sent=sent, nobody=nobody)
    except StreamsError as error:
        raise FlipbackError(
            f"{error}. Without Kafka: `flipback rollback {flags[0].flag} --direct`, {DIRECT_WHERE}"
        ) from error
    finally:
        showing.cancel()
    statuses = []
    for ref, (before, event) in last.items():
        name = f"{ref.environment}/{ref.flag}"
        if event is None or event.type not in FINAL:
            what = "no executor has answered" if event is None else _last_word(event)
            click.echo(f"flipback: {name}: {what} within {WAIT_S:.0f} s; {until}; use --direct", err=True)
            statuses.append(_NOT_DONE)
        elif event.type in done:
            click.echo(f"{done[event.type]}: {name}, incident {event.data['incident']}")
        elif event.data.get("reason") == Reason.DUPLICATE and before.safe:
            click.echo(f"safe already: {name}; the order was a duplicate: {event.data['detail']}")
        else:
            why = event.data.get("detail") or "the flag was changed meanwhile and left alone; try again"
            click.echo(f"flipback: {name}: not done: {why}", err=True)
            statuses.append(_NOT_DONE)
    return max(statuses, default=0)


def _last_word(event: Event) -> str:
    why = str(event.data.get("reason") or event.data.get("detail") or "")[:_LONGEST]
    return f"the last word was {event.type}" + (f": {why}," if why else "")
