"""Asks the brokers whether the topics of a role exist, and whether a member of its group reads each partition.

Faust shows only that a process has no partition. The reason may be that other processes have all, that the topic does
not exist, or that the group lost its assignment; the brokers know which.
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
    """The brokers' answer: topics that are `missing`; for each group, the partitions of its topics that no member
    reads (`unread`); and how many partitions each topic has (`counts`)."""

    missing: tuple[str, ...]
    unread: Mapping[str, tuple[Source, ...]]
    counts: Mapping[str, int] = MappingProxyType({})

    def without(self, own: Collection[Source]) -> TopicCoverage:
        """A copy whose `unread` lacks the partitions that this process reads itself.

        Not every broker shows the members of a group; the demo's broker shows none.
        """
        unread = {name: tuple(s for s in sources if s not in own) for name, sources in self.unread.items()}
        return TopicCoverage(self.missing, unread, self.counts)


async def read_coverage(admin: Any, topics: Iterable[str], groups: Sequence[Group]) -> TopicCoverage:
    """Describe `topics` and the groups, whose topics are among them. Raises KafkaError if no broker answers.

    `admin` is a started AIOKafkaAdminClient.
    """
    counts, missing = {}, []
    # `describe_topics` would create a missing topic on a broker with `auto.create.topics.enable`.
    answer = await admin._send_request(MetadataRequest(sorted(topics), allow_auto_topic_creation=False))
    for topic in answer.to_object()["topics"]:
        if for_code(topic["error_code"]) is UnknownTopicOrPartitionError:
            missing.append(topic["topic"])
        else:
            counts[topic["topic"]] = len(topic["partitions"])
    unread = {}
    for group in groups:
        read = await _read_by(admin, group.name)
        existing = [Source(topic, p) for topic in group.topics for p in range(counts.get(topic, 0))]
        unread[group.name] = tuple(source for source in existing if source not in read)
    return TopicCoverage(tuple(sorted(missing)), unread, counts)


async def _read_by(admin: Any, group: str) -> set[Source]:
    """The partitions that are assigned to the members of a group."""
    found: set[Source] = set()
    for response in await admin.describe_consumer_groups([group]):
        # Fields: error, name, state, protocol type, protocol, members; later versions of the protocol append more.
        for error, _, _, _, _, members, *_ in response.groups:
            if error:
                raise for_code(error)(f"group {group!r} cannot be described")
            for _, _, _, _, assignment in members:
                if assignment:
                    given = ConsumerProtocol.ASSIGNMENT.decode(assignment)
                    found |= {Source(tp.topic, tp.partition) for tp in given.partitions()}
    return found
