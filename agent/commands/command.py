"""The order to make a flag safe: its fields, its signature, and the reasons to refuse one.

On the wire a command is `FBC1`, 8 bytes of key id, 64 bytes of Ed25519 signature and a JSON payload. The layout is
binary so that a command has only one encoding: JSON and base64 have several spellings of one value. The signature
covers `flipback.command.v1\\0` and the payload, so that a signature made for another purpose is not valid here. It is
checked before the payload is parsed: the parser sees only what a key holder wrote.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from agent.commands.keys import KEY_ID_BYTES, SIGNATURE_BYTES, PrivateKey, PublicKey

MAX_BYTES = 64 * 1024
MAX_INSTANCES = 10
MAX_VARIANTS = 10
LIFETIME_S = 60.0
"""Seconds from `issued_at` to `expires_at`: later the evidence is old, and the monitor must issue a new command."""

BY_HAND = "by-hand"
"""The trigger of a person's command. No trigger of a configuration can have this name."""

_MAGIC = b"FBC1"
_DOMAIN = b"flipback.command.v1\0"
_HEAD = len(_MAGIC) + KEY_ID_BYTES + SIGNATURE_BYTES
_NAMESPACE = uuid.UUID("5a1f6d0e-7c1b-4a86-9a53-3f0f6f2f5b0d")

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Why the command was issued: the window that made the trigger fire, or the person who ordered it.

    Times are Unix seconds of event time, except `fired_at` of a person's command, which is the clock.

    - `window` is [from, to). `value`, `threshold` and `control` are in the unit of the metric (ratios 0 to 1, latencies
      in milliseconds). `counts` are requests by kind.
    - `sources` is the number of instances that contributed; `instances` names at most ten of them.
    - `age_s` is the age of the end of the window when the trigger fired.
    - `first_true_at` is the evaluation at which the condition became true. `fired_at` is the evaluation for which this
      command was issued: later than the first that fired if the command is issued again.
    - `tier` is what fired: a condition that held, the fast tier, or a proof. For the last two, `evidence` and the
      `bound` that it reached are in nats, accumulated since `since`. For the proof of an absence, `window` and `counts`
      are those of the control.
    - `null_rate` (0 to 1) is the share of bad requests that the fast tier assumes to be healthy.
    - `variants` has the counts of each variant of the flag, over the window, or its last minute if it is longer.
    - `by` and `reason` are who ordered a person's command, and why; such a command has no other evidence.
    """

    metric: Name
    scope: Name
    window: tuple[float, float]
    op: Name
    threshold: float
    value: float
    samples: Annotated[int, msgspec.Meta(ge=0)]
    counts: dict[str, int]
    sources: Annotated[int, msgspec.Meta(ge=0)]
    instances: Annotated[tuple[str, ...], msgspec.Meta(max_length=MAX_INSTANCES)] = ()
    age_s: float
    first_true_at: float
    fired_at: float
    control: float | None = None
    tier: str = "held"
    evidence: float | None = None
    bound: float | None = None
    null_rate: float | None = None
    since: float | None = None
    variants: Annotated[dict[str, dict[str, int]], msgspec.Meta(max_length=MAX_VARIANTS)] = {}
    by: Annotated[str, msgspec.Meta(max_length=512)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=4096)] = ""


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """The flag whose trigger fired, and the version of it that was judged."""

    flag: Name
    flag_version: Name


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """Set `flag` of `environment` to `target`, its safe variant, because of `incident`; valid until `expires_at`.

    Times are Unix seconds. `flag_version` is the version that was judged, in the form of FlagStatus.version: a flag in
    any other version is not written. `cause` is set if the trigger of another flag fired and this flag is made safe
    together with it; the incident is that flag's. `rules_hash` identifies the configuration by which it was judged.
    A reader ignores fields that it does not know, so that two versions of the agent can work side by side.
    """

    id: Name
    flag: Name
    environment: Name
    service: Name
    backend: Name
    target: Name
    trigger: Name
    incident: Name
    flag_version: Name
    issued_at: Seconds
    expires_at: Seconds
    rules_hash: str
    evidence: Evidence
    cause: Cause | None = None

    @property
    def origin(self) -> Cause:
        """The flag and version that the incident is about."""
        return self.cause or Cause(flag=self.flag, flag_version=self.flag_version)

    @property
    def by_hand(self) -> bool:
        """Is it a person's order? Limits and the cooldown do not apply to those."""
        return self.trigger == BY_HAND


class Reason(StrEnum):
    """Why a command is refused. The audit log stores these values: never change one."""

    OVERSIZED = "oversized"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown-key"
    BAD_SIGNATURE = "bad-signature"
    WRONG_ID = "wrong-id"
    UNKNOWN_FLAG = "unknown-flag"
    WRONG_SERVICE = "wrong-service"
    WRONG_BACKEND = "wrong-backend"
    WRONG_STATE = "wrong-state"
    FROM_THE_FUTURE = "from-the-future"
    EXPIRED = "expired"
    DUPLICATE = "duplicate"
    COOLDOWN = "cooldown"
    WRONG_GROUP = "wrong-group"
    HALTED = "halted"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal. `detail` says what was expected; it holds no secret and can be logged."""

    reason: Reason
    detail: str


def incident_id(environment: str, flag: str, flag_version: str, trigger: str) -> str:
    """Return the id of the incident of a trigger on a version of a flag; every process computes the same id."""
    return _name("incident", environment, flag, flag_version, trigger)


def command_id(flag: str, target: str, trigger: str, incident: str) -> str:
    return _name("command", flag, target, trigger, incident)


@dataclass(frozen=True, slots=True)
class FlipTarget:
    """What a command flips: `flag` of `environment`, kept in `backend`, to the variant `target`.

    `service` is the service for which the flag is managed.
    """

    flag: str
    environment: str
    service: str
    backend: str
    target: str


def issue(
    flip: FlipTarget,
    *,
    trigger: str,
    flag_version: str,
    issued_at: float,
    rules_hash: str,
    evidence: Evidence,
    lifetime_s: float = LIFETIME_S,
    cause: Cause | None = None,
) -> Command:
    """Make the command of a firing trigger or of a person. It expires `lifetime_s` seconds after `issued_at`.

    The ids of the incident and of the command follow from the other fields: the same order has the same ids.
    """
    origin = cause or Cause(flag=flip.flag, flag_version=flag_version)
    incident = incident_id(flip.environment, origin.flag, origin.flag_version, trigger)
    return Command(
        id=command_id(flip.flag, flip.target, trigger, incident),
        flag=flip.flag,
        environment=flip.environment,
        service=flip.service,
        backend=flip.backend,
        target=flip.target,
        trigger=trigger,
        incident=incident,
        flag_version=flag_version,
        issued_at=issued_at,
        expires_at=issued_at + lifetime_s,
        rules_hash=rules_hash,
        evidence=evidence,
        cause=cause,
    )


def sign(command: Command, private: PrivateKey) -> bytes:
    """Return the command as it is sent. Raises ValueError if it is larger than an executor accepts."""
    payload = msgspec.json.encode(command)
    if _HEAD + len(payload) > MAX_BYTES:
        raise ValueError(f"command {command.id} takes {_HEAD + len(payload)} bytes, at most {MAX_BYTES} are accepted")
    return _MAGIC + bytes.fromhex(private.id) + private.sign(_DOMAIN + payload) + payload


def verify(raw: bytes, publics: Mapping[str, PublicKey]) -> Command | Rejection:
    """Return the command in `raw` if one of `publics` (by key id) signed it and it is well formed, else the refusal."""
    if len(raw) > MAX_BYTES:
        return Rejection(Reason.OVERSIZED, f"{len(raw)} bytes, at most {MAX_BYTES} are accepted")
    if len(raw) < _HEAD or not raw.startswith(_MAGIC):
        return Rejection(Reason.MALFORMED, f"{len(raw)} bytes that are no command of version 1")
    key_end = len(_MAGIC) + KEY_ID_BYTES
    key_id = raw[len(_MAGIC) : key_end].hex()
    public = publics.get(key_id)
    if public is None:
        return Rejection(
            Reason.UNKNOWN_KEY, f"signed with key {key_id}, accepted are {', '.join(sorted(publics)) or 'none'}"
        )
    payload = raw[_HEAD:]
    if not public.verify(raw[key_end:_HEAD], _DOMAIN + payload):
        return Rejection(Reason.BAD_SIGNATURE, f"the signature is not key {key_id}'s of this payload")
    try:
        command = _decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return Rejection(Reason.MALFORMED, f"payload: {error}")
    origin = command.origin
    if command.incident != incident_id(command.environment, origin.flag, origin.flag_version, command.trigger):
        return Rejection(
            Reason.WRONG_ID, "the incident is not that of this environment, flag, flag version and trigger"
        )
    if command.id != command_id(command.flag, command.target, command.trigger, command.incident):
        return Rejection(Reason.WRONG_ID, "the id is not that of this flag, target, trigger and incident")
    return command


def _name(*parts: str) -> str:
    # As a JSON array, because ("a", "bc") and ("ab", "c") must have different ids.
    return str(uuid.uuid5(_NAMESPACE, json.dumps(parts)))


_decoder = msgspec.json.Decoder(Command)
