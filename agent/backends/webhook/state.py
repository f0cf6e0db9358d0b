"""The state of a flag as a webhook's endpoint returns it: docs/webhook.md."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec

from agent.backends.contract import FlagRef, FlagState
from agent.backends.http import HttpAnswer
from agent.backends.json_answer import decoded
from agent.backends.shown import listed
from agent.errors import Invalid

_NO_STATE = "the webhook: the answer is no state of a flag, see docs/webhook.md"


class _State(msgspec.Struct):
    """The members of an answer that flipback knows; the other members are part of the definition too."""

    variant: str | None
    percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    version: str | int | None = None
    variants: list[str] | None = None


class WebhookFlag(msgspec.Struct):
    """A flag as an endpoint returned it, or, without `state_url`, as this process set it."""

    state: FlagState
    etag: str | None = None
    identity: str = ""
    variants: list[str] | None = None

    def check_variants(self, ref: FlagRef, *variants: str) -> None:
        """Raise Invalid if the endpoint names its variants, and one of these is missing."""
        for variant in variants:
            if self.variants is not None and variant not in self.variants:
                raise Invalid(f"flag {ref.flag!r} has the variants {listed(self.variants)}, and not {variant!r}")


def read_flag(answer: HttpAnswer) -> WebhookFlag:
    """Return the flag in an answer. Raises Invalid if there is none."""
    value: dict[str, Any] = decoded(answer.body, dict[str, Any], _NO_STATE)
    try:
        known = msgspec.convert(value, _State)
    except msgspec.ValidationError as error:
        raise Invalid(f"{_NO_STATE}: {error}") from None
    etag: str | None = answer.headers.get("ETag")
    # If-Match uses strong comparison (RFC 9110, section 13.1.1): a weak ETag never matches.
    if etag is not None and etag.startswith("W/"):
        etag = None
    state = state_of(value)
    identity = state.version if etag is None and known.version is None else f"{etag} {known.version}"
    return WebhookFlag(state, etag, identity, known.variants)


def state_of(value: dict[str, Any]) -> FlagState:
    """Return the state of a definition.

    Its version is a hash of the content, because an endpoint's own version may rise when a flag is restored.
    """
    content = {name: member for name, member in value.items() if name != "version"}
    raw = msgspec.json.encode(content, order="sorted")
    return FlagState(
        variant=value.get("variant"),
        percent=value.get("percent"),
        version=hashlib.sha256(raw).hexdigest()[:16],
        raw=raw.decode(),
    )


def is_as_ordered(state: FlagState, as_set: FlagState) -> bool:
    """Does the flag give what was ordered, whatever its other members are?"""
    return state.variant == as_set.variant if as_set.percent is None else state.percent == as_set.percent
