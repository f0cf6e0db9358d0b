"""`flipback fake`: a flag system on loopback to rehearse with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import click

from agent.cli.options import PORT
from agent.errors import FlipbackError

if TYPE_CHECKING:
    from agent.fakes.server import Fake

FAKES = {
    "firestore": "agent.fakes.firestore.server:FakeFirestore",
    "rtdb": "agent.fakes.rtdb.server:FakeRealtimeDatabase",
    "remote-config": "agent.fakes.remote_config.server:FakeRemoteConfig",
}


@click.command("fake")
@click.argument("system", type=click.Choice(list(FAKES)))
@click.option("--port", default=0, type=PORT, show_default=True, help="Port on loopback; 0 takes a free one.")
@click.option(
    "--control-port", default=0, type=PORT, show_default=True, help="Port for faults and flags; 0 for a free one."
)
@click.option("--flag", "flags", multiple=True, metavar="NAME[=on|off]", help="A flag that is there; may be repeated.")
@click.option("--fault", "faults", multiple=True, metavar="FAULT", help="A fault to come; may be repeated.")
def command(system: str, port: int, control_port: int, flags: tuple[str, ...], faults: tuple[str, ...]) -> int:
    """Serve a fake of a flag system on loopback, until Ctrl-C: its protocol, its preconditions, in memory.

    \b
    FAULT is such as write:status=503,times=2  write:commit-then-fail=503  write:hang  write:drop
                     read:delay=1.5            read:lie
    While it runs, `curl -d write:hang 127.0.0.1:CONTROL/faults` orders one, and
    `curl -X PUT '127.0.0.1:CONTROL/flags/NAME?variant=on'` sets a flag as a person would.
    A fault is used up by the next request of its kind, and a running agent makes a dry run every 10 s:
    `times=0` makes it last for ever.
    """
    import asyncio

    module, _, name = FAKES[system].partition(":")
    fake: Fake = getattr(import_module(module), name)()
    for flag in flags:
        key, _, variant = flag.partition("=")
        if not key or variant not in ("", "on", "off"):
            raise click.UsageError(f"--flag {flag}: expected NAME, NAME=on or NAME=off")
        try:
            fake.put(key, variant or "on")
        except FlipbackError as error:
            raise click.UsageError(f"--flag {flag}: {error}") from None
    for fault in faults:
        try:
            fake.faults.add(fault)
        except FlipbackError as error:
            raise click.UsageError(f"--fault: {error}") from None
    asyncio.run(_serve(fake, port, control_port))
    return 0


async def _serve(fake: Fake, port: int, control_port: int) -> None:
    import asyncio
    import signal

    from agent.fakes.server import LOOPBACK, Control

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    control = Control(fake)
    try:
        await fake.start(port)
        await control.start(control_port)
        click.echo(f"serving  {LOOPBACK}:{fake.port}")
        click.echo(f"control  http://{LOOPBACK}:{control.port}")
        await stop.wait()
    finally:
        await control.stop()
        await fake.stop()
