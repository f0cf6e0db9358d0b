"""Are the topics of a role there, and does a member of its group read each of their partitions?

Faust says of a process without a partition only that it has none: other processes may have all, the topic may be gone,
or the group may have lost its assignment. The brokers know which.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from aiokafka.coordinator.protocol import ConsumerProtocol
from aiokafka.errors import UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.metadata import MetadataRequest

from streams.slices import Source


@dataclass(frozen=True, slots=True)
class Group:
    """A role's consumer group and the topics that it reads."""

    name: str
    topics: tuple[str, ...]


class TopicCoverage(NamedTuple):
    """What the brokers say: topics that are `missing`, by group the partitions of its topics that no member has, and
    how many partitions each topic has."""

    missing: tuple[str, ...]
    unread: Mapping[str, tuple[Source, ...]]
    counts: Mapping[str, int] = MappingProxyType({})

    def without(self, own: Collection[Source]) -> TopicCoverage:
        """The same, less the partitions that this process itself reads: not every broker shows the members of a group
        (the demo's shows none).
        """
        unread = {name: tuple(s for s in sources if s not in own) for name, sources in self.unread.items()}
        return TopicCoverage(self.missing, unread, self.counts)


async def look(admin: Any, topics: Iterable[str], groups: Sequence[Group]) -> TopicCoverage:
    """Ask about `topics` and about the groups, whose topics are among them; KafkaError where no answer is to be had.

    `admin` is a started AIOKafkaAdminClient.
    """
    counts, missing = {}, []
    # `describe_topics` would have a broker with `auto.create.topics.enable` make a topic that is missing.
    answer = await admin._send_request(MetadataRequest(sorted(topics), allow_auto_topic_creation=False))
    for topic in answer.to_object()["topics"]:
        if for_code(topic["error_code"]) is UnknownTopicOrPartitionError:
            missing.append(topic["topic"])
        else:
            counts[topic["topic"]] = len(topic["partitions"])
    unread = {}
    for group in groups:
        read = await _read_by(admin, group.name)
        there = [Source(topic, p) for topic in group.topics for p in range(counts.get(topic, 0))]
        unread[group.name] = tuple(source for source in there if source not in read)
    return TopicCoverage(tuple(sorted(missing)), unread, counts)


async def _read_by(admin: Any, group: str) -> set[Source]:
    """The partitions that the members of a group have."""
    found: set[Source] = set()
    for response in await admin.describe_consumer_groups([group]):
        # Error, name, state, protocol type, protocol, members; later versions append.
        for error, _, _, _, _, members, *_ in response.groups:
            if error:
                raise for_code(error)(f"group {group!r} cannot be described")
            for _, _, _, _, assignment in members:
                if assignment:
                    given = ConsumerProtocol.ASSIGNMENT.decode(assignment)
                    found |= {Source(tp.topic, tp.partition) for tp in given.partitions()}
    return found
