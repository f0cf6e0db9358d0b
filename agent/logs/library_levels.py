"""The level at which a library's line is logged: people set alerts on levels.

Faust and aiokafka log as errors what they try again by themselves, and what is no fault in flipback. flipback itself
checks that brokers answer, roles read and records are taken, and reports failures in /readyz and as an inability.
Errors that do not pass by themselves keep their level: rights, passwords, certificates, and all that is not named here.
"""

from __future__ import annotations

import logging
import re

STREAM_WATCH = (
    "Aiokafka has not sent fetch request for",
    "Aiokafka has not received fetch response for",
    "Aiokafka stopped fetching from",
    "Broker stopped responding to fetch requests for",
    "Highwater not yet available for",
    "Stream has not started processing",
    "Stream stopped processing, or is slow for",
    "Has not committed",
)
"""Faust's own checks of its streams. They report partials, which are never committed, and a process that was paused, as
stuck; streams.kafka.liveness ends a process that is stuck.
"""

RETRIED = (
    "Unable connect to",
    "Unable to update metadata from",
    "Group Coordinator Request failed:",
    "FindCoordinator Request failed:",
    "Error sending %s to node %s [%s] -- marking coordinator dead",
    "Heartbeat session expired - marking coordinator dead",
    "Heartbeat send request failed:",
    "Failed fetch messages from",
    "Failed fetch offsets from",
    "OffsetCommit failed for group %s due to group",
    "OffsetCommit failed for group %s on partition %s",
    "OffsetCommit failed before join, ignoring:",
    "Failed to commit on finallization:",
    "LeaveGroup request failed:",
    "Topic %s not found in cluster metadata",
)
"""Errors after which aiokafka tries again until the brokers are back or the topic exists."""

_SERVICE = re.compile(r"^\s*\[\^[^\]]*\]:")
"""The prefix with which mode names the service: `[^--AIOKafkaConsumerThread]:`."""

_LASTING = re.compile(r"auth|sasl|ssl|tls|certificate|credential|password|denied", re.IGNORECASE)
"""Words of errors that last until a person mends them."""


def sane(record: logging.LogRecord) -> bool:
    """A handler's filter: corrects the level of lines of Faust and aiokafka, and drops those below the root's level."""
    level = _level(record)
    if level != record.levelno:
        record.levelno, record.levelname = level, logging.getLevelName(level)
        return level >= logging.getLogger().level
    return True


def _level(record: logging.LogRecord) -> int:
    library = record.name.partition(".")[0]
    if record.levelno < logging.ERROR or library not in ("aiokafka", "faust", "mode"):
        return record.levelno
    template = _SERVICE.sub("", str(record.msg), count=1).lstrip()
    if library != "aiokafka" and template.startswith(STREAM_WATCH):
        return logging.DEBUG
    if template.startswith(RETRIED) and not _LASTING.search(record.getMessage()):
        return logging.WARNING
    return record.levelno
