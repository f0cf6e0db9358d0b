"""`flipback bench`: measure this machine on a real Kafka."""

from __future__ import annotations

import click

PARTS = ("ingest", "monitor", "flip", "restart", "start")
WITHOUT_BROKER = {"monitor"}
"""Parts that need no broker."""


@click.command("bench")
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--kafka", envvar="FLIPBACK_KAFKA", metavar="HOST:PORT", help="A broker; else FLIPBACK_KAFKA.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON a measure.")
def command(parts: tuple[str, ...], kafka: str | None, as_json: bool) -> None:
    """Measure this machine on a real Kafka: all, or some of ingest, monitor, flip, restart, start.

    \b
    ingest   telemetry in Kafka to acknowledged partials, beside a plain Faust agent
    monitor  one evaluation of 10,000 scopes with 8 triggers each; needs no broker
    flip     condition true to acknowledged command, command to verified flip
    restart  start of a process to caught up, with 2,000 scopes of history
    start    `flipback --help`, start to ready, memory when idle

    Topics and groups have names of their own and the topics are deleted at the end. Run it on a machine that does
    nothing else: every figure is of this one run.
    """
    chosen = [part for part in PARTS if part in parts] if parts else list(PARTS)
    if kafka is None and not WITHOUT_BROKER.issuperset(chosen):
        raise click.UsageError(
            "no broker: name one with --kafka host:port or FLIPBACK_KAFKA, or run `make bench` in the source tree, "
            "which starts one; `flipback bench monitor` needs none"
        )
    import msgspec

    from agent.bench.measures import lines, machine
    from agent.bench.suite import run

    if not as_json:
        click.echo(f"machine                    {machine()}")
    for measure in run(chosen, kafka):
        if as_json:
            click.echo(msgspec.json.encode(measure))
        else:
            click.echo("\n".join(["", *lines(measure)]))
