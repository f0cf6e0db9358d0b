"""`flipback run`: watch telemetry and flip flags."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import config_option
from agent.logs.setup import configure, log_event

if TYPE_CHECKING:
    import asyncio

    from agent.heartbeats.heartbeat import Role

_logger = logging.getLogger(__name__)

ROLE_NAMES: tuple[Role, ...] = ("ingest", "monitor", "executor")


@click.command("run")
@config_option
@click.option("--roles", default=",".join(ROLE_NAMES), show_default=True, help="Roles of this process, with commas.")
@click.option(
    "--log-level", default="info", show_default=True, type=click.Choice(["debug", "info", "warning", "error"])
)
@click.option("--log-json/--log-text", default=None, help="Logs as JSON lines; the default off a terminal.")
def command(path: Path, roles: str, log_level: str, log_json: bool | None) -> int:
    """Watch telemetry and flip flags, until SIGTERM or Ctrl-C. SIGHUP reloads nothing: it is logged.

    All roles run in this process unless --roles names some: `ingest` reduces telemetry, `monitor` evaluates triggers
    and signs commands, `executor` carries them out. Start more of any role for more capacity, or as standby.
    """
    configure(log_level, log_json, words=_words)
    chosen: list[Role] = [name for name in ROLE_NAMES if name in {word.strip() for word in roles.split(",")}]
    unknown = sorted({word.strip() for word in roles.split(",")} - set(ROLE_NAMES))
    if unknown or not chosen:
        raise click.UsageError(f"--roles {roles}: expected some of {', '.join(ROLE_NAMES)}")
    # Importing Faust takes half a second and 50 MB: first check the options and the configuration.
    import asyncio

    from agent.config.load import load

    config = load(path)
    import uvloop

    from agent.runtime.shutdown import Deadline, end_on_signals
    from agent.runtime.worker import run

    ending = Deadline()

    async def main() -> None:
        stop = asyncio.Event()
        end = end_on_signals(ending, stop)
        _on_hangup(asyncio.get_running_loop(), end, path)
        await run(config, chosen, stop, ending=ending)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    return 0


def _on_hangup(loop: asyncio.AbstractEventLoop, end: Callable[[], None], path: Path) -> None:
    """Handle SIGHUP, which by default kills the process, even during a flip.

    A closed terminal sends it: the process ends as at SIGTERM. Without a terminal a person sends it to reload: the
    process logs that it does not reload, and goes on, because a restart with a wrong file would leave no process.
    Under `nohup` the signal stays ignored.
    """
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return

    def go_on() -> None:
        todo = f"the configuration is read at the start only: `flipback config check {path}`, then restart the process"
        log_event(_logger, "run.not-reloaded", level=logging.WARNING, signal="SIGHUP", todo=todo)

    loop.add_signal_handler(signal.SIGHUP, end if sys.stderr.isatty() else go_on)


def _words(event: str, fields: dict[str, Any]) -> str | None:
    # Imported with the first event, so that a wrong option is reported without delay.
    from agent.events.wording import log_line

    return log_line(event, fields)
