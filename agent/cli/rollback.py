"""`flipback rollback`: make a flag safe by hand."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.confirm import ReasonParam, confirm
from agent.cli.options import config_option
from agent.control.person import user

if TYPE_CHECKING:
    from agent.config.flags import Flag
    from agent.config.model import Config
    from agent.events.cloudevents import Event

_NOT_DONE = 4
_MAYBE_UNSEEN = 6
_SHOW_EVERY_S = 5.0


@click.command("rollback")
@click.argument("flag")
@config_option
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
    from agent.config.groups import NotManaged, SeveralEnvironments, group_of
    from agent.config.load import load
    from agent.control.rollback import DIRECT_WHERE
    from agent.control.rollback_lines import plan_line, question
    from agent.errors import KeyFileError

    config = load(path)
    try:
        flags = group_of(config.flags, flag, environment)
    except NotManaged as error:
        raise click.BadParameter(str(error), param_hint="FLAG") from None
    except SeveralEnvironments as error:
        raise click.BadParameter(str(error), param_hint="--environment") from None
    instead = f"`{shlex.join(_direct_arguments(flag, path, environment, reason))}`, {DIRECT_WHERE}"
    if not direct:
        # Fail before the question if the commands cannot be signed.
        try:
            load_private(config.signing_key)
        except KeyFileError as error:
            raise KeyFileError(f"{error}. Without the key: {instead}") from None
    for one in flags:
        click.echo(plan_line(one))
    if not yes:
        confirm(question(len(flags)))
    work = _direct(config, flags, reason, user()) if direct else _by_kafka(config, flags, reason, user(), instead)
    return asyncio.run(work)


def _direct_arguments(flag: str, path: Path, environment: str | None, reason: str) -> list[str]:
    """Return the command line of the same rollback without Kafka, to be pasted."""
    where = [] if environment is None else ["--environment", environment]
    return ["flipback", "rollback", flag, "-c", str(path), *where, "--reason", reason, "--direct"]


async def _direct(config: Config, flags: list[Flag], reason: str, by: str) -> int:
    from agent.control.rollback import direct
    from agent.control.rollback_lines import direct_report

    status = 0
    async for flag, result, health in direct(config, flags, reason=reason, by=by):
        report = direct_report(flag, result, health)
        if not report.safe:
            click.echo(f"flipback: {report.line}", err=True)
            status = _NOT_DONE
            continue
        click.echo(report.line)
        for reason_unseen in report.unseen:
            click.echo(f"flipback: {reason_unseen}", err=True)
            status = status or _MAYBE_UNSEEN
        for doubt in report.doubts:
            click.echo(f"flipback: {doubt}", err=True)
    return status


async def _by_kafka(config: Config, flags: list[Flag], reason: str, by: str, instead: str) -> int:
    import asyncio

    from agent.control.rollback import WAIT_S, by_kafka
    from agent.control.rollback_lines import NOTHING_SENT, expiry, kafka_report, unheard_line
    from agent.errors import FlipbackError
    from agent.events.wording import sentence
    from streams.errors import StreamsError

    begun, until = time.monotonic(), NOTHING_SENT

    def show(text: str) -> None:
        click.echo(f"  {time.monotonic() - begun:5.2f} s  {text}")

    def step(event: Event) -> None:
        show(f"{event.subject}: {sentence(event)}")

    async def show_waiting() -> None:
        while True:
            await asyncio.sleep(_SHOW_EVERY_S)
            show("waiting for an executor")

    def sent(expires: float) -> None:
        nonlocal until
        until = expiry(expires)

    def unheard(why: str) -> None:
        click.echo(f"flipback: {unheard_line(why, until)}", err=True)

    click.echo(f"sending; an executor has {WAIT_S:.0f} s")
    waiting = asyncio.create_task(show_waiting())
    try:
        last = await by_kafka(config, flags, reason=reason, by=by, step=step, sent=sent, nobody=unheard)
    except StreamsError as error:
        raise FlipbackError(f"{error}. Without Kafka: {instead}") from error
    finally:
        waiting.cancel()
    status = 0
    for ref, (before, event) in last.items():
        report = kafka_report(ref, before, event, until)
        if report.safe:
            click.echo(report.line)
        else:
            click.echo(f"flipback: {report.line}", err=True)
            status = _NOT_DONE
    return status
