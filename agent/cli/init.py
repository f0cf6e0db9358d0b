"""`flipback init`: write a configuration and a file of flags to start with."""

from __future__ import annotations

from pathlib import Path

import click


class _Plain(click.ParamType):
    """A name that needs no quotes in YAML."""

    name = "name"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from agent.config.starter import is_plain

        if not is_plain(value):
            self.fail(f"{value!r}: expected letters, digits, `.`, `_` and `-`; write other names into the file", param)
        return value


class _Brokers(click.ParamType):
    """One or more HOST:PORT, separated by commas."""

    name = "brokers"

    def convert(
        self, value: str | tuple[str, ...], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        from agent.config.starter import is_broker

        if isinstance(value, tuple):
            return value
        found = tuple(one.strip() for one in value.split(","))
        for one in found:
            if not is_broker(one):
                self.fail(f"{one!r}: expected HOST:PORT, such as 127.0.0.1:9092", param)
        return found


@click.command("init")
@click.argument("directory", default=Path(), type=click.Path(path_type=Path, file_okay=False))
@click.option("--service", default="recommendations", show_default=True, type=_Plain(), help="The service to watch.")
@click.option(
    "--flag", default="new-recommendations", show_default=True, type=_Plain(), help="The flag of its release."
)
@click.option("--topic", default="requests", show_default=True, type=_Plain(), help="The topic of its samples.")
@click.option(
    "--brokers",
    default="127.0.0.1:9092",
    show_default=True,
    type=_Brokers(),
    metavar="HOST:PORT,...",
    help="Where Kafka listens.",
)
def command(directory: Path, service: str, flag: str, topic: str, brokers: tuple[str, ...]) -> int:
    """Write a commented flipback.yaml and a flags.json for flagd into DIRECTORY, to begin with.

    Nothing is overwritten. The first hour with them is in docs/first-hour.md.
    """
    from agent.config.starter import CONFIG_NAME, Names, write

    for path in write(directory, Names(service=service, flag=flag, topic=topic, brokers=brokers)):
        click.echo(f"written: {path}")
    config = directory / CONFIG_NAME
    click.echo("next:")
    click.echo(f"  flipback config check {config}   # how each trigger will be judged")
    click.echo(f"  flipback doctor -c {config}      # would a flip work now, and does telemetry come?")
    return 0
