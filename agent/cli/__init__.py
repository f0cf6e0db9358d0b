"""The `flipback` command: a module for each subcommand, imported only when it is called.

So `flipback --help` loads neither numpy nor Faust. It may import everything in the three packages.

A subcommand parses its arguments, calls another package, prints the lines or JSON that it gets, and returns its exit
status, or None for 0. Texts and tables are made in the other packages, so that a web page can show the same. A
subcommand raises a typed error of one of the packages if the user can fix the cause.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click

from agent.errors import FlipbackError
from detectors.errors import DetectorError
from streams.errors import StreamsError


class Subcommand(NamedTuple):
    """The place of a command, `module:attribute`, and its line in `flipback --help`."""

    target: str
    help: str


SUBCOMMANDS = {
    "init": Subcommand("agent.cli.init:command", "Write a configuration and a file of flags to begin with."),
    "run": Subcommand("agent.cli.run:command", "Watch telemetry and flip flags: all roles, or some with --roles."),
    "replay": Subcommand("agent.cli.replay:command", "Judge recorded telemetry without a broker."),
    "simulate": Subcommand("agent.cli.simulate:command", "How fast and how often wrong each trigger is, simulated."),
    "backtest": Subcommand("agent.cli.backtest:command", "Judge the triggers on recordings with known faults."),
    "test": Subcommand("agent.cli.test:command", "Unit tests of triggers: input series, expected states."),
    "topics": Subcommand("agent.cli.topics:command", "Create flipback's topics, or show what would be created."),
    "keys": Subcommand("agent.cli.keys:command", "Make the keys that sign commands."),
    "config": Subcommand("agent.cli.config:command", "Check a configuration, or print its JSON Schema."),
    "rollback": Subcommand("agent.cli.rollback:command", "Make a flag safe by hand, also where Kafka is away."),
    "doctor": Subcommand("agent.cli.doctor:command", "Would a flip work now? Reads and dry runs, no write."),
    "explain": Subcommand(
        "agent.cli.explain:command", "What happened in an incident, or to a flag, and why; reads Kafka."
    ),
    "restore": Subcommand("agent.cli.restore:command", "Put a flag back as it was before an incident."),
    "halt": Subcommand("agent.cli.halt:halt", "Turn no flag back without a person, until resumed."),
    "resume": Subcommand("agent.cli.halt:resume", "Turn flags back again after a halt."),
    "status": Subcommand("agent.cli.status:command", "Show flags, verdicts and the newest incidents."),
    "fake": Subcommand("agent.cli.fake:command", "Serve a fake of a flag system on loopback, to rehearse with."),
    "bench": Subcommand("agent.cli.bench:command", "Measure this machine on a real Kafka."),
    "demo": Subcommand("agent.cli.demo:command", "Watch a bad release being turned off, with a broker of its own."),
}

EXIT_STATUS = """\b
Exit status:
  0    done
  1    failed
  2    wrong usage
  3    the configuration, or a file that it names, is invalid
  4    the flag backend did not do what was asked
  5    the snapshot was not restored
  6    the flags are safe, and something may keep applications from seeing it
  130  interrupted
"""


_DISCARD = logging.NullHandler()


class LazyGroup(click.Group):
    """A group that has the names and help lines of its commands, and imports a command only to call it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name].target.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # Click's own method reads the help of each command, and would import them all.
        with formatter.section("Commands"):
            formatter.write_dl([(name, subcommand.help) for name, subcommand in SUBCOMMANDS.items()])


@click.group(cls=LazyGroup, epilog=EXIT_STATUS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="flipback", message="%(prog)s %(version)s")
def group() -> None:
    """Watch request telemetry in Kafka and turn a release's feature flag back when it hurts."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (`sys.argv` by default) and exit; an error is one message on stderr, never a traceback."""
    sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    # Without a handler, aiokafka's warnings go to stderr, and repeat the command's own message. `run` adds a handler.
    logging.getLogger("aiokafka").addHandler(_DISCARD)
    try:
        # Not standalone: click would turn an interrupt into status 1 and drop the status that a command returns.
        result: Any = group.main(arguments, prog_name="flipback", standalone_mode=False)
    except FlipbackError as error:
        click.echo(f"flipback: {error}", err=True)
        return error.exit_code
    except (StreamsError, DetectorError) as error:
        click.echo(f"flipback: {error}", err=True)
        return FlipbackError.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort as error:
        # At a prompt click turns an interrupt into Abort; only its context tells it from the end of the input.
        click.echo("flipback: interrupted", err=True)
        return 130 if isinstance(error.__context__, KeyboardInterrupt) else 1
    return result if isinstance(result, int) else 0
