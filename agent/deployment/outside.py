"""What the topics say of the processes of a deployment, for a command line that looks at it from outside."""

from __future__ import annotations

from collections.abc import Sequence

from agent.armed.verdict import VERDICTS, Arming, arming
from agent.armed.view import View, wanted
from agent.config.kafka import connection
from agent.config.model import Config
from agent.errors import LedgerError
from agent.heartbeats.heartbeat import Member, Obstacle, alive, members_of
from agent.ledger.automation import Automation, words
from agent.telemetry.topics import foreign
from agent.views.status import Status
from streams.kafka.reader import read_to_end
from streams.kafka.topics import Topics, present, there_are

_NOT_LIVE = "is its telemetry read in time, and is a monitor alive?"


async def read_members(config: Config) -> list[Member] | None:
    """Every process that has published a heartbeat; None where there is no such topic."""
    topic, client = Topics(config.kafka.prefix).heartbeats, connection(config).client
    if topic not in await present([topic], client):
        return None
    return members_of(await read_to_end(topic, client))


async def look(config: Config, status: Status, local: Sequence[Obstacle] = ()) -> tuple[Arming, list[Member]]:
    """Would a flip happen now, by all that the topics say, and by `local`; and the processes that there are.

    TopicError where no broker answers.
    """
    topics = [Topics(config.kafka.prefix).partials, *(telemetry.topic for telemetry in config.telemetry)]
    members, partitions = status.members, {topic: status.topics[topic] for topic in topics if topic in status.topics}
    if len(partitions) < len(set(topics)):
        # By the names of the others a slip is seen; how many partitions those have nobody asks.
        there = await there_are(connection(config).client)
        partitions = {**dict.fromkeys(foreign(config, there), 0), **partitions}
    told = {member.beat.halted for member in members or ()}
    halts = [halt for halt in halt_here(config) if halt.bounded().why not in told]
    judging = [Obstacle(what=VERDICTS, why=problem, do=_NOT_LIVE) for problem in status.problems]
    if members is not None and not alive(members, "monitor"):
        # That no monitor is alive is an obstacle by itself.
        judging = []
    seen = View(
        members=members,
        partitions=partitions,
        ages={(flag.environment, flag.flag): status.at - flag.at for flag in status.flags},
        local=[*halts, *local, *judging],
    )
    return arming(wanted(config), seen), members or []


def halt_here(config: Config) -> list[Obstacle]:
    """The halt in this machine's state directory, where an executor has used it. It may be newer than heartbeats."""
    if not config.state_dir.is_dir():
        return []
    try:
        halt = Automation(config.state_dir).halted()
    except LedgerError as error:
        return [Obstacle(what="automation", why=str(error))]
    return [] if halt is None else [Obstacle(what="automation", why=words(halt))]
