"""Checks of the brokers and of the telemetry topics."""

from __future__ import annotations

from collections.abc import Iterable

from agent.backends.address import is_loopback
from agent.config.document import Note
from agent.config.wrong import WRONG, decoded_items
from streams.decoders.sources import pattern_of
from streams.settings import KafkaSettings, SecuritySettings, TelemetrySettings


def check_kafka(kafka: KafkaSettings, note: Note) -> None:
    """Check the addresses of brokers, their security and the settings for groups and topics."""
    remote = []
    for index, broker in decoded_items(kafka.brokers):
        host, colon, port = broker.rpartition(":")
        if not (colon and host and port.isascii() and port.isdigit() and 0 < int(port) < 65536) or " " in broker:
            note(f"kafka.brokers[{index}]", f"expected host:port, found {broker!r}", "such as 127.0.0.1:9092")
        elif not is_loopback(host.strip("[]")):
            remote.append(broker)
    if remote and kafka.security is None:
        note(
            "kafka.security",
            f"missing, and {remote[0]} is not on loopback",
            "write `security: {}` under kafka to speak TLS, with a cafile if the brokers' authority is your own, or "
            "`security: {allow_plaintext: true}` if you trust the network between",
        )
    if kafka.security not in (None, WRONG):
        _security(kafka.security, note)
    if kafka.session_timeout is not WRONG and kafka.session_timeout < 1:
        note("kafka.session_timeout", "expected 1s at least", "brokers accept 6s and more, unless told otherwise")
    if kafka.replication == 0:
        note("kafka.replication", "expected -1, or 1 and more", "-1 stands for three, or as many as there are brokers")


def _security(security: SecuritySettings, note: Note) -> None:
    """Check that settings that need each other are both given."""
    pairs = [("certfile", "keyfile"), ("keyfile", "certfile")]
    pairs += [("mechanism", "username"), ("mechanism", "password_file")]
    pairs += [("username", "mechanism"), ("password_file", "mechanism")]
    missing = {wanted: given for given, wanted in pairs if getattr(security, given) and not getattr(security, wanted)}
    for wanted, given in missing.items():
        note(f"kafka.security.{wanted}", f"missing, although {given} is given", f"add `{wanted}`")
    for name in ("cafile", "certfile", "keyfile"):
        if security.allow_plaintext is True and getattr(security, name):
            note(f"kafka.security.{name}", "is for TLS, which allow_plaintext turns off", "remove one of the two")


def check_telemetry(telemetry: Iterable[TelemetrySettings], prefix: str, note: Note) -> None:
    """Check the telemetry topics: the pattern of `source`, and names that are neither repeated nor flipback's own."""
    seen: dict[str, int] = {}
    for index, source in decoded_items(telemetry):
        path, topic = f"telemetry[{index}].topic", source.topic
        if source.source is not WRONG:
            try:
                pattern_of(source.source)
            except ValueError as error:
                note(f"telemetry[{index}].source", f"is {error}", "write instance, partition, or such as ([^/]+)/")
        if topic is WRONG:
            continue
        if topic in seen:
            note(path, f"{topic} is telemetry[{seen[topic]}] too: it would be counted twice", "leave one of the two")
        seen.setdefault(topic, index)
        if prefix is not WRONG and topic.startswith(f"{prefix}."):
            note(path, f"names that begin with {prefix}. are flipback's own", "rename it, or set kafka.prefix")
