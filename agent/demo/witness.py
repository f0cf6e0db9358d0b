"""Reads flipback's topics, as any consumer can, and records the steps of the flip in the story.

Steps of monitor and executor have the time in the command or the event, steps that are records the time of the record.
All processes except a remote broker share one clock.
"""

from __future__ import annotations

import asyncio
import math
from functools import partial

from agent.commands.command import Command, verify
from agent.commands.keys import load_public
from agent.config.model import Config
from agent.demo.scene import FLAG, OLD
from agent.demo.steps import FlipStep, second
from agent.demo.story import Story
from agent.events import cloudevents as events
from streams.kafka.reader import read_topic
from streams.monitor.health import decoder

_COMMAND_WITHIN = 1.0
"""Seconds to wait for a command, whose time of firing is exact, before the time of the event is used."""


async def read_health(story: Story) -> None:
    """Follow the health records: the counts and the verdict of each second."""
    async for read in read_topic(story.scene.topics.health, story.scene.connection):
        for record in read.records:
            counted = second(decoder.decode(record.value or b""))
            if counted is not None:
                story.count(counted)


async def read_commands(story: Story, config: Config) -> None:
    """Follow the commands whose signature is valid.

    No event may delay a command, so it is written before the event that its trigger fires, and it holds the time of
    firing.
    """
    publics = {key.id: key for key in map(load_public, config.public_keys)}
    async for read in read_topic(story.scene.topics.commands, story.scene.connection):
        for record in read.records:
            command = verify(record.value or b"", publics)
            if not isinstance(command, Command) or command.flag != FLAG:
                continue
            evidence = command.evidence
            story.evidence = evidence
            # Round down as the times of records, which are whole milliseconds.
            fired = math.floor(command.issued_at * 1000) / 1000
            story.mark(FlipStep.FIRING, fired, _held(evidence.value, evidence.samples))
            lifetime = command.expires_at - command.issued_at
            detail = f"set it to {command.target!r}; signed, valid for {lifetime:.0f} s"
            story.mark(FlipStep.COMMAND, record.timestamp / 1000, detail)


async def read_events(story: Story) -> None:
    """Follow the events: changes of the verdict and the steps of the flip."""
    async for read in read_topic(story.scene.topics.events, story.scene.connection):
        for record in read.records:
            _note(story, events.from_kafka(record.value, record.headers), record.timestamp / 1000)


def _note(story: Story, event: events.Event, written: float) -> None:
    data, file = event.data, story.scene.flags.name
    if event.type == events.trigger_type("pending"):
        failed = _failed(data["value"], data["samples"])
        story.mark(FlipStep.PENDING, written, f"{failed}, more than {data['threshold']:.0%}")
    elif event.type == events.trigger_type("firing"):
        fired = partial(story.mark, FlipStep.FIRING, written, _held(data["value"], data["samples"]))
        asyncio.get_running_loop().call_later(_COMMAND_WITHIN, fired)
    elif event.type == events.FLAG_WRITTEN:
        story.mark(FlipStep.WRITTEN, event.time, f"{file} says {OLD!r} for everyone")
    elif event.type == events.FLAG_VERIFIED:
        story.mark(FlipStep.READ_BACK, event.time, f"{file} was read again, and it does")


def _held(value: float, samples: int) -> str:
    return f"it has held: {_failed(value, samples)}"


def _failed(value: float, samples: int) -> str:
    return f"{value:.1%} of {samples:,} requests failed"
