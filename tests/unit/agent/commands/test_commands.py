from __future__ import annotations

import uuid

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agent.commands.command import (
    MAX_BYTES,
    Command,
    Evidence,
    FlipTarget,
    Reason,
    Rejection,
    command_id,
    incident_id,
    issue,
    sign,
    verify,
)
from agent.commands.keys import PrivateKey

KEY = PrivateKey(Ed25519PrivateKey.generate())
PUBLICS = {KEY.id: KEY.public}
EVIDENCE = Evidence(
    metric="error_rate",
    scope="production/shop/new-checkout@on",
    window=(1000.0, 1060.0),
    op=">",
    threshold=0.02,
    value=0.2,
    samples=5000,
    counts={"requests": 5000, "errors": 1000},
    sources=3,
    instances=("a", "b", "c"),
    age_s=2.5,
    first_true_at=940.0,
    fired_at=1062.5,
)


def command(**changes: object) -> Command:
    made = issue(
        FlipTarget("new-checkout", "production", "shop", "files", "off"),
        trigger="errors",
        flag_version="g1-abc",
        issued_at=1062.5,
        rules_hash="r1",
        evidence=EVIDENCE,
    )
    return msgspec.structs.replace(made, **changes)


RAW = sign(command(), KEY)


def refused(raw: bytes) -> Reason:
    result = verify(raw, PUBLICS)
    assert isinstance(result, Rejection)
    assert result.detail
    return result.reason


def test_a_signed_command_arrives_as_it_was_sent() -> None:
    assert verify(RAW, PUBLICS) == command()


@given(at=st.integers(0, len(RAW) - 1), byte=st.integers(1, 255))
def test_a_command_with_any_byte_altered_is_refused(at: int, byte: int) -> None:
    altered = bytearray(RAW)
    altered[at] ^= byte
    assert isinstance(verify(bytes(altered), PUBLICS), Rejection)


@given(at=st.integers(0, len(RAW) - 1))
def test_a_command_cut_short_is_refused(at: int) -> None:
    assert isinstance(verify(RAW[:at], PUBLICS), Rejection)


@given(tail=st.binary(min_size=1, max_size=20))
def test_a_command_with_anything_added_is_refused(tail: bytes) -> None:
    assert isinstance(verify(RAW + tail, PUBLICS), Rejection)


@given(raw=st.binary(max_size=400))
def test_no_bytes_crash_the_check(raw: bytes) -> None:
    assert isinstance(verify(raw, PUBLICS), Rejection)
    assert isinstance(verify(RAW[:4] + raw, PUBLICS), Rejection)


@given(payload=st.binary(max_size=200))
def test_a_signed_payload_that_is_no_command_is_malformed(payload: bytes) -> None:
    signature = KEY.sign(b"flipback.command.v1\0" + payload)
    assert refused(b"FBC1" + bytes.fromhex(KEY.id) + signature + payload) is Reason.MALFORMED


def test_a_command_of_another_key_is_refused() -> None:
    other = PrivateKey(Ed25519PrivateKey.generate())
    assert refused(sign(command(), other)) is Reason.UNKNOWN_KEY


def test_a_refusal_names_the_key_and_those_that_are_accepted() -> None:
    other = PrivateKey(Ed25519PrivateKey.generate())
    for publics, named in (({other.id: other.public}, other.id), ({}, "none")):
        result = verify(RAW, publics)
        assert isinstance(result, Rejection)
        assert f"key {KEY.id}, accepted are {named}" in result.detail


def test_another_keys_signature_under_a_known_key_id_is_forged() -> None:
    other = sign(command(), PrivateKey(Ed25519PrivateKey.generate()))
    assert refused(RAW[:12] + other[12:]) is Reason.BAD_SIGNATURE


def test_a_signature_of_the_payload_alone_does_not_fit() -> None:
    payload = msgspec.json.encode(command())
    assert refused(b"FBC1" + bytes.fromhex(KEY.id) + KEY.sign(payload) + payload) is Reason.BAD_SIGNATURE


def test_the_signature_is_checked_before_the_payload_is_parsed() -> None:
    assert refused(RAW[:76] + b"{") is Reason.BAD_SIGNATURE


def test_an_oversized_command_is_refused_before_anything_is_read() -> None:
    assert refused(RAW[:76] + b" " * MAX_BYTES) is Reason.OVERSIZED


def test_a_command_of_the_very_largest_size_is_signed_and_obeyed() -> None:
    """Signing and verifying have the same limit, so that a command that can be signed is accepted."""
    small = sign(command(evidence=msgspec.structs.replace(EVIDENCE, counts={"x": 1})), KEY)
    largest = command(evidence=msgspec.structs.replace(EVIDENCE, counts={"x" * (1 + MAX_BYTES - len(small)): 1}))
    raw = sign(largest, KEY)
    assert len(raw) == MAX_BYTES
    assert verify(raw, PUBLICS) == largest
    with pytest.raises(ValueError, match=f"takes {MAX_BYTES + 1} bytes, at most {MAX_BYTES} "):
        sign(command(evidence=msgspec.structs.replace(EVIDENCE, counts={"x" * (2 + MAX_BYTES - len(small)): 1})), KEY)


def test_a_head_without_a_payload_is_judged_by_its_key() -> None:
    head = b"FBC1" + bytes(8) + bytes(64)
    assert refused(head) is Reason.UNKNOWN_KEY
    assert refused(head[:-1]) is Reason.MALFORMED


def test_an_oversized_command_is_not_signed() -> None:
    with pytest.raises(ValueError, match="65536"):
        sign(command(rules_hash="x" * MAX_BYTES), KEY)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": str(uuid.uuid4())},
        {"incident": str(uuid.uuid4())},
        {"flag": "other-flag"},
        {"environment": "staging"},
        {"target": "on"},
        {"trigger": "slow"},
        {"flag_version": "g2-abc"},
    ],
)
def test_an_id_that_does_not_follow_from_the_content_is_refused(changes: dict[str, object]) -> None:
    assert refused(sign(command(**changes), KEY)) is Reason.WRONG_ID


@pytest.mark.parametrize("field", ["flag", "environment", "service", "backend", "target", "trigger", "flag_version"])
def test_an_empty_selector_is_refused(field: str) -> None:
    assert refused(sign(command(**{field: ""}), KEY)) is Reason.MALFORMED


def test_not_a_number_is_refused() -> None:
    evidence = msgspec.structs.replace(EVIDENCE, value=float("nan"))
    assert refused(sign(command(evidence=evidence), KEY)) is Reason.MALFORMED


def test_fields_of_a_later_version_are_ignored() -> None:
    payload = msgspec.json.encode({**msgspec.to_builtins(command()), "added_later": 1})
    raw = b"FBC1" + bytes.fromhex(KEY.id) + KEY.sign(b"flipback.command.v1\0" + payload) + payload
    assert verify(raw, PUBLICS) == command()


def test_ids_follow_from_what_they_name() -> None:
    assert incident_id("production", "f", "g1-a", "errors") == incident_id("production", "f", "g1-a", "errors")
    assert uuid.UUID(command().id).version == 5
    assert uuid.UUID(command().incident).version == 5


def test_ids_are_the_same_in_each_version_of_flipback() -> None:
    """Monitors and executors of two versions work side by side, and open incidents keep their ids after an update."""
    incident = incident_id("production", "new-checkout", "g1-abc", "errors")
    assert incident == "476c066e-5ede-5f8b-8a9e-9e611ebd64b2"
    assert command_id("new-checkout", "off", "errors", incident) == "13448ee2-6f3d-5e57-8807-ee3909b22a64"


@given(
    one=st.tuples(*[st.text(max_size=3)] * 4),
    other=st.tuples(*[st.text(max_size=3)] * 4),
)
def test_different_words_never_share_an_id(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    assert (incident_id(*one) == incident_id(*other)) == (one == other)
    assert (command_id(*one) == command_id(*other)) == (one == other)
    assert command_id(*one) != incident_id(*one)
