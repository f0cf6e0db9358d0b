"""`flipback demo`: watch a bad release being turned off."""

from __future__ import annotations

import re
import signal

import click


def _addresses(ctx: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """Check a list of HOST:PORT, separated by commas."""
    for broker in [] if value is None else value.split(","):
        parts = re.fullmatch(r"[^\s:]+:([0-9]{1,5})", broker)
        if parts is None or not 0 < int(parts[1]) < 65536:
            raise click.BadParameter(f"expected host:port, found {broker!r}")
    return value


@click.command("demo")
@click.option(
    "--kafka", metavar="HOST:PORT", callback=_addresses, help="Brokers to use, without TLS; if absent, an embedded one."
)
def command(kafka: str | None) -> int:
    """Watch a bad release of a small real service being turned off, in under a minute.

    Starts a broker of its own, flipback, two instances of a shop and their users; then the release behind the shop's
    flag begins to fail. Everything runs on this machine, on loopback, and is gone afterwards. On --kafka, topics with
    names of their own are made, and removed again.

    Exit status 0 only if the flag was turned off and the shop has recovered.
    """
    import asyncio

    from rich.console import Console

    from agent.demo.director import play
    from agent.demo.live import LiveScreen
    from agent.demo.plain import PlainScreen
    from agent.demo.story import Screen, Story

    console = Console(highlight=False)
    drawn = console.is_terminal and not console.is_dumb_terminal

    def screen_of(story: Story) -> Screen:
        return LiveScreen(story, console) if drawn else PlainScreen(story, click.echo)

    async def main() -> int:
        task = asyncio.create_task(play(kafka, screen_of))
        signals: list[signal.Signals] = []

        def interrupt(number: signal.Signals) -> None:
            # Cancel once: a second signal must not interrupt the end of the processes.
            if not signals:
                task.cancel()
            signals.append(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
        try:
            return await task
        except asyncio.CancelledError:
            click.echo("flipback: interrupted, everything is stopped", err=True)
            return 128 + signals[0]

    return asyncio.run(main())
