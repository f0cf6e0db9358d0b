"""What flipback says of itself, read from its topics as anybody could, and put into the story.

A step's time is the one at which it happened: what monitor and executor did has their clock in the command and in the
events, what a topic got has the time of the record. All processes but a remote broker share one clock.
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
"""Seconds after which a trigger has fired even if no command tells when."""


async def read_health(story: Story) -> None:
    """Follow the seconds that flipback has counted and judged."""
    async for read in read_topic(story.scene.topics.health, story.scene.connection):
        for record in read.records:
            counted = second(decoder.decode(record.value or b""))
            if counted is not None:
                story.count(counted)


async def read_commands(story: Story, config: Config) -> None:
    """Follow the commands; one counts only if its signature is right. A command is older than the event that its
    trigger fires, because no event may delay it, so the time of firing is in it.
    """
    publics = {key.id: key for key in map(load_public, config.public_keys)}
    async for read in read_topic(story.scene.topics.commands, story.scene.connection):
        for record in read.records:
            command = verify(record.value or b"", publics)
            if not isinstance(command, Command) or command.flag != FLAG:
                continue
            seen = command.evidence
            story.evidence = seen
            # Records have whole milliseconds.
            fired = math.floor(command.issued_at * 1000) / 1000
            story.mark(FlipStep.FIRING, fired, _held(seen.value, seen.samples))
            lifetime = command.expires_at - command.issued_at
            detail = f"set it to {command.target!r}; signed, valid for {lifetime:.0f} s"
            story.mark(FlipStep.COMMAND, record.timestamp / 1000, detail)


async def read_events(story: Story) -> None:
    """Follow the audit log: verdicts and the steps of the flip."""
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
