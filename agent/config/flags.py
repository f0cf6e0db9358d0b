"""Flags under watch and their triggers, as they are written in the configuration file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from detectors.conditions.grammar import parse
from detectors.conditions.spec import Action, Condition
from streams.settings import WholeSeconds, whole_seconds

Mode = Literal["active", "shadow"]
# In Python `$` alone matches before a line break at the end, in JSON Schema it does not.
_WORD, _END = r"[^\s\x00-\x1f\x7f]+", r"$(?!\n)"
Name = Annotated[
    str,
    Meta(
        pattern=f"^{_WORD}( {_WORD})*{_END}",
        max_length=200,
        extra={"expected": "a name of at most 200 characters, without blanks around it"},
    ),
]
# No slash: baseline files and reports write `environment/service`.
Environment = Annotated[
    str,
    Meta(
        pattern=rf"^[^/\s\x00-\x1f\x7f]+{_END}",
        max_length=200,
        extra={"expected": "a name of at most 200 characters, without blanks or /"},
    ),
]


class When(str):
    """A condition as it is written. Decoding has checked that it can be parsed."""

    __slots__ = ()

    @property
    def condition(self) -> Condition:
        return parse(self)


class Trigger(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A condition and what is done when it holds."""

    name: Annotated[Name, Meta(description="Names the trigger in verdicts and incidents; unique for the flag.")]
    when: Annotated[
        When,
        Meta(
            description="METRIC[@variant] OP VALUE [over WINDOW] [for DURATION], METRIC@variant OP control (proof that "
            "the variant is worse), or absence@variant (the variant has fallen silent)",
            examples=[
                "error_rate > 2% for 2m",
                "latency_p95@on > 800ms over 30s for 1m",
                "error_rate@on > 3x control",
                "error_rate@on > control",
                "absence@on",
            ],
        ),
    ]
    guard: Annotated[
        Literal["control", "none"],
        Meta(
            description="control: a breach of the whole service commands nothing while the requests with the safe "
            "variant breach too, where variants are reported."
        ),
    ] = "control"
    action: Annotated[
        Action, Meta(description="rollback: set the safe variant; hold: stop advancing; alert: only tell.")
    ] = "rollback"
    mode: Annotated[Mode, Meta(description="shadow: judged and reported, never commanded.")] = "active"
    min_samples: Annotated[
        Annotated[int, Meta(ge=0)] | Literal["auto"],
        Meta(
            description="Samples a window needs, else the verdict is unknown. auto: for ratios and latency_pNN so many "
            "that a healthy service breaches once in a million evaluations, in a window of up to `max_window`; healthy "
            "is what the baseline file stores, else 0.5 % bad (half of the limit, if less), two thirds of the allowed "
            "cache misses, a fifth of the requests that may be above a latency. Compared with the control, and for "
            "means and measures: 30, 10/(1-q) for quantiles; for throughput 0."
        ),
    ] = "auto"
    max_window: Annotated[
        WholeSeconds | None, Meta(description="As `max_window` of the whole file, for this trigger alone.")
    ] = None
    fast: Annotated[
        bool | None,
        Meta(
            description="Fire within seconds on a gross failure too, whatever the window and `for`. For a fixed limit "
            "on a ratio or a latency_pNN. If absent: true for error_rate, timeout_rate and availability."
        ),
    ] = None
    false_alarms: Annotated[
        WholeSeconds | None, Meta(description="As `false_alarms` of the whole file, for this trigger alone.")
    ] = None
    unknown_grace: Annotated[
        WholeSeconds | None, Meta(description="As `unknown_grace` of the whole file, for this trigger alone.")
    ] = None
    unknown_alert: Annotated[
        WholeSeconds | None, Meta(description="As `unknown_alert` of the whole file, for this trigger alone.")
    ] = None
    keep_for: Annotated[
        WholeSeconds,
        Meta(description="How long a trigger that fired is shown firing after its condition was last true."),
    ] = whole_seconds(0)


class Flag(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flag under watch in one service and environment, and its safe state."""

    flag: Annotated[Name, Meta(description="The flag's key, in the flag system and in samples.")]
    service: Annotated[Name, Meta(description="The service whose requests are judged.")]
    environment: Annotated[Environment, Meta(description="The environment whose requests are judged.")] = "production"
    backend: Annotated[Name, Meta(description="A name under `backends`.")]
    safe: Annotated[Name, Meta(description='The variant that a rollback sets for everyone, such as "off".')]
    control: Annotated[
        Name | None, Meta(description="The variant that `3x control` compares with; the safe one if absent.")
    ] = None
    together: Annotated[
        list[Name], Meta(description="Flags of the same environment that a rollback makes safe together with this one.")
    ] = msgspec.field(default_factory=list)
    mode: Annotated[Mode, Meta(description="shadow: all triggers of the flag are in shadow mode.")] = "active"
    triggers: Annotated[list[Trigger], Meta(min_length=1)]
