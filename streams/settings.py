"""The parts of the configuration file about Kafka: brokers, security, and telemetry topics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

Format = Literal["json", "json-array", "ndjson", "columnar", "counters"]


class Seconds(float):
    """A duration: text in the file (`1.5s`, `1m30s`), a number of seconds in the program."""


class WholeSeconds(int):
    """A duration of whole seconds, the unit of event time."""


def seconds(default: float) -> Any:
    """A default duration."""
    # A factory, because msgspec writes only built-in values as defaults into a JSON Schema.
    return msgspec.field(default_factory=lambda: Seconds(default))


def whole_seconds(default: int) -> Any:
    """A default duration of whole seconds."""
    return msgspec.field(default_factory=lambda: WholeSeconds(default))


class SecuritySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How brokers are reached: by TLS, unless plaintext is allowed; with SASL if a mechanism is given."""

    cafile: Annotated[
        Path | None, Meta(description="Authorities (PEM) that vouch for the brokers; those of the system if absent.")
    ] = None
    certfile: Annotated[Path | None, Meta(description="Client certificate (PEM), for mutual TLS.")] = None
    keyfile: Annotated[Path | None, Meta(description="Key of the client certificate (PEM).")] = None
    mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None, Meta(description="SASL mechanism.")
    ] = None
    username: Annotated[str, Meta(description="SASL user.", min_length=1)] | None = None
    password_file: Annotated[
        Path | None, Meta(description="File (mode 0600) with the SASL password; line breaks at its end do not count.")
    ] = None
    allow_plaintext: Annotated[
        bool, Meta(description="No TLS, although brokers are off loopback: whoever sits between can forge telemetry.")
    ] = False


class KafkaSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The brokers and what flipback keeps on them."""

    brokers: Annotated[list[str], Meta(description="host:port of some brokers; they name the others.", min_length=1)]
    prefix: Annotated[
        str,
        Meta(
            description="Begins the names of flipback's own topics and consumer groups.",
            pattern=r"^[A-Za-z0-9_-]{1,100}$(?!\n)",
            extra={"expected": "letters, digits, _ and -"},
        ),
    ] = "flipback"
    security: SecuritySettings | None = None
    create_topics: Annotated[bool, Meta(description="Create the topics that are missing at the start.")] = True
    partials_partitions: Annotated[
        int,
        Meta(description="Partitions of flipback.partials when created; so many monitors can share it.", ge=1, le=1000),
    ] = 8
    replication: Annotated[
        int,
        Meta(
            description="Replicas of the topics it creates; -1 stands for three, or as many as there are brokers.",
            ge=-1,
            le=10,
        ),
    ] = -1
    # Shorter than the 10 s after which a partition without an owner makes verdicts unknown. Brokers reject less than
    # 6 s unless their group.min.session.timeout.ms is lower.
    session_timeout: Annotated[
        Seconds, Meta(description="Silence after which the partitions of a dead worker go to another.")
    ] = seconds(6)


class TelemetrySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A topic that carries samples."""

    topic: Annotated[
        str,
        Meta(
            description="The topic's name.",
            pattern=r"^[A-Za-z0-9._-]{1,249}$(?!\n)",
            extra={"expected": "the name of a topic: letters, digits, . _ and -"},
        ),
    ]
    format: Annotated[
        Format, Meta(description="How its records are written; the content-type header of a record outranks it.")
    ] = "json"
    source: Annotated[
        str,
        Meta(
            description="What counts as one source of evidence: `instance`, the sample's; `partition`, the topic's; or "
            "a regular expression that matches the beginning of instances, whose one group is the source, such as "
            "`([^/]+)/` for the host in host-1/worker-2.",
            min_length=1,
            max_length=200,
            extra={"expected": "instance, partition, or a regular expression with one group"},
        ),
    ] = "instance"
