"""The processes of a deployment as the topics show them, for the command line."""

from __future__ import annotations

from collections.abc import Sequence

from agent.armed.verdict import VERDICTS, Arming, arming
from agent.armed.view import View, wanted
from agent.config.kafka import connection
from agent.config.model import Config
from agent.errors import LedgerError
from agent.events.wording import halt_in_force
from agent.heartbeats.heartbeat import Member, Obstacle, alive, members_of
from agent.ledger.automation import Automation
from agent.telemetry.topics import foreign
from agent.views.status import Status
from streams.kafka.reader import read_to_end
from streams.kafka.topics import Topics, existing_partitions, topic_names

_NOT_LIVE = "is its telemetry read in time, and is a monitor alive?"


async def read_members(config: Config) -> list[Member] | None:
    """Every process that has published a heartbeat; None if the topic does not exist."""
    topic, client = Topics(config.kafka.prefix).heartbeats, connection(config).client
    if topic not in await existing_partitions([topic], client):
        return None
    return members_of(await read_to_end(topic, client))


async def look(config: Config, status: Status, local: Sequence[Obstacle] = ()) -> tuple[Arming, list[Member]]:
    """Would a flip happen now, by the topics and the obstacles in `local`? Also returns the processes.

    Raises TopicError if no broker answers.
    """
    topics = [Topics(config.kafka.prefix).partials, *(telemetry.topic for telemetry in config.telemetry)]
    members, partitions = status.members, {topic: status.topics[topic] for topic in topics if topic in status.topics}
    if len(partitions) < len(set(topics)):
        # The names of other topics help to correct a misspelt one; their numbers of partitions do not matter.
        there = await topic_names(connection(config).client)
        partitions = {**dict.fromkeys(foreign(config, there), 0), **partitions}
    published = {member.beat.halted for member in members or ()}
    halts = [halt for halt in halt_here(config) if halt.bounded().why not in published]
    judging = [Obstacle(what=VERDICTS, why=problem, do=_NOT_LIVE) for problem in status.problems]
    if members is not None and not alive(members, "monitor"):
        # The missing monitor is an obstacle of its own.
        judging = []
    seen = View(
        members=members,
        partitions=partitions,
        ages={(flag.environment, flag.flag): status.at - flag.at for flag in status.flags},
        local=[*halts, *local, *judging],
    )
    return arming(wanted(config), seen), members or []


def halt_here(config: Config) -> list[Obstacle]:
    """The halt in this machine's state directory, if an executor uses it. It may be newer than the heartbeats."""
    if not config.state_dir.is_dir():
        return []
    try:
        halt = Automation(config.state_dir).halted()
    except LedgerError as error:
        return [Obstacle(what="automation", why=str(error))]
    return [] if halt is None else [Obstacle(what="automation", why=halt_in_force(halt))]
