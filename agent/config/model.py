"""The configuration: what may stand in it, what it means, what holds when nothing is said."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.backends.settings import Backend
from agent.commands.keys import PRIVATE_NAME, PUBLIC_NAME
from agent.config.baseline import NO_BASELINE, read_baseline
from agent.config.min_samples import with_auto
from detectors.conditions.grammar import parse
from detectors.conditions.spec import FALSE_ALARMS, Action, Condition, TriggerSpec
from streams.monitor.drift_watch import DriftTarget, HabitMetric, Method
from streams.settings import KafkaSettings, Seconds, TelemetrySettings, WholeSeconds, seconds, whole_seconds

_FAST = ("error_rate", "timeout_rate", "availability")

Mode = Literal["active", "shadow"]
# `$` alone would let a line break pass at the end in Python, though not in JSON Schema.
_WORD, _END = r"[^\s\x00-\x1f\x7f]+", r"$(?!\n)"
Name = Annotated[
    str,
    Meta(
        pattern=f"^{_WORD}( {_WORD})*{_END}",
        max_length=200,
        extra={"expected": "a name of at most 200 characters, without blanks around it"},
    ),
]
# Without a slash, because `environment/service` is how a baseline and a report name the two together.
Environment = Annotated[
    str,
    Meta(
        pattern=rf"^[^/\s\x00-\x1f\x7f]+{_END}",
        max_length=200,
        extra={"expected": "a name of at most 200 characters, without blanks or /"},
    ),
]


HABIT = 0.005
"""Share of bad requests that is a service's habit where no baseline says otherwise."""


class When(str):
    """A condition as it is written; what has been decoded is known to be readable."""

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


class CommandSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Orders to the executor."""

    expires: Annotated[Seconds, Meta(description="Age at which a command is no longer obeyed.")] = seconds(60)
    cooldown: Annotated[Seconds, Meta(description="Least time between two flips of a flag.")] = seconds(60)


class AutomationSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much flipback may do by itself. What would be more halts it, until a person resumes it."""

    max_flips: Annotated[int, Meta(description="Flags that may be turned back within `within`.", ge=1)] = 3
    max_share: Annotated[
        float, Meta(description="Share of the managed flags (0 to 1) that may be, one at least.", ge=0, le=1)
    ] = 0.1
    within: Annotated[Seconds, Meta(description="The time in which flips are counted.")] = seconds(600)

    def most(self, managed: int) -> int:
        """Flags that may be turned back within `within`, of so many that are managed: one at least."""
        # 0.29 times 100 is a little less than 29 in floating point.
        return max(1, min(self.max_flips, int(round(self.max_share * managed, 9))))


class BlameSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of several flags of a service is turned back."""

    window: Annotated[
        Seconds, Meta(description="How long ago a flag may have changed to be blamed before one that did not.")
    ] = seconds(3600)


class DriftSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A ratio of a whole service that is watched for a change of its habit, told and never acted upon.

    Needs river: `pip install 'flipback[drift]'`.
    """

    service: Annotated[Name, Meta(description="The service that is watched.")]
    environment: Annotated[Environment, Meta(description="Its environment.")] = "production"
    metric: Annotated[
        HabitMetric, Meta(description="The ratio; its habit is the baseline file's value, else 0.5 % bad.")
    ]
    method: Annotated[Method, Meta(description="Page-Hinkley, which is quicker, or ADWIN.")] = "page_hinkley"


class AfterFlipSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is looked at when a flag has been turned back."""

    effect: Annotated[
        Seconds, Meta(description="Time within which the requests of the flag's other variants must have fallen.")
    ] = seconds(60)
    bake: Annotated[Seconds, Meta(description="Time after which the metric that fired must be better than it was.")] = (
        seconds(120)
    )


class KeySettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of commands. Only the monitor needs the signing key, only the executor the public ones."""

    signing_key: Annotated[
        Path | None,
        Meta(description=f"What commands are signed with; {PRIVATE_NAME} in the state directory if absent."),
    ] = None
    public_keys: Annotated[
        Annotated[list[Path], Meta(min_length=1)] | None,
        Meta(description=f"Keys whose commands are obeyed; {PUBLIC_NAME} in the state directory if absent."),
    ] = None


class WebSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Health over HTTP: /healthz and /readyz."""

    host: Annotated[str, Meta(description="Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="Port to listen on; 0 takes a free one.", ge=0, le=65535)] = 6071


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The configuration of flipback. Paths in it are relative to the file it stands in."""

    api_version: Annotated[Literal["flipback/v1"], Meta(description="Version of this format.")] = msgspec.field(
        name="apiVersion"
    )
    kafka: KafkaSettings
    telemetry: Annotated[list[TelemetrySettings], Meta(description="Topics that carry samples.", min_length=1)]
    backends: Annotated[dict[str, Backend], Meta(description="Flag systems, each under a name.", min_length=1)]
    flags: Annotated[list[Flag], Meta(description="Flags under watch.", min_length=1)]
    mode: Annotated[Mode, Meta(description="shadow: all is computed and nothing is commanded.")] = "active"
    evaluate_every: Annotated[
        WholeSeconds, Meta(description="Triggers are evaluated at whole multiples of this event time.")
    ] = whole_seconds(1)
    max_lateness: Annotated[
        Seconds, Meta(description="How long a second waits for samples that come out of order.")
    ] = seconds(2)
    unknown_grace: Annotated[
        WholeSeconds,
        Meta(description="An unknown verdict pauses the timer of a trigger; after this long it clears it."),
    ] = whole_seconds(30)
    unknown_alert: Annotated[
        WholeSeconds,
        Meta(description="A verdict of a flag in use that is unknown for so long is an inability."),
    ] = whole_seconds(300)
    max_window: Annotated[
        WholeSeconds,
        Meta(description="A window with too few samples for `min_samples: auto` gives way to longer ones, up to this."),
    ] = whole_seconds(600)
    false_alarms: Annotated[
        WholeSeconds,
        Meta(description="Mean time between two false alarms of a trigger's fast tier or absence, at least."),
    ] = whole_seconds(FALSE_ALARMS)
    catching_up_after: Annotated[Seconds, Meta(description="This far behind the present, nothing is commanded.")] = (
        seconds(15)
    )
    max_scopes: Annotated[
        int, Meta(description="Scopes kept at most; what overflows is counted and unknown.", ge=1, le=1_000_000)
    ] = 2000
    command: CommandSettings = msgspec.field(default_factory=CommandSettings)
    automation: AutomationSettings = msgspec.field(default_factory=AutomationSettings)
    blame: BlameSettings = msgspec.field(default_factory=BlameSettings)
    drift: Annotated[list[DriftSettings], Meta(description="Habits of services that are watched for a change.")] = (
        msgspec.field(default_factory=list)
    )
    after_flip: AfterFlipSettings = msgspec.field(default_factory=AfterFlipSettings)
    keys: KeySettings = KeySettings()
    state_dir: Annotated[Path, Meta(description="Where snapshots, the ledger and keys are kept.")] = msgspec.field(
        default_factory=lambda: Path(".flipback")
    )
    baseline: Annotated[Path | None, Meta(description="File of the values that `1.5x baseline` compares with.")] = None
    web: WebSettings = WebSettings()

    @property
    def signing_key(self) -> Path:
        return self.keys.signing_key or self.state_dir / PRIVATE_NAME

    @property
    def public_keys(self) -> list[Path]:
        return self.keys.public_keys or [self.state_dir / PUBLIC_NAME]

    def habits(self) -> list[DriftTarget]:
        """The habits that are watched: the baseline file's value, else 0.5 % bad. ConfigError as `trigger_specs`."""
        baseline = read_baseline(self.baseline) if self.baseline is not None else NO_BASELINE
        found = []
        for one in self.drift:
            value = baseline.value(one.environment, one.service, one.metric)
            good = one.metric in ("availability", "cache_hit_rate")
            bad = HABIT if value is None else 1 - value if good else value
            found.append(DriftTarget(one.environment, one.service, one.metric, one.method, (bad,)))
        return found

    def trigger_specs(self) -> list[TriggerSpec]:
        """The triggers of all flags in the file's order, every default filled in.

        The most cautious mode wins: shadow at the top, at the flag or at the trigger. Reads the baseline file, if one
        is named, and raises ConfigError when that cannot be done; SpecError on a configuration that was not checked.
        """
        baseline = read_baseline(self.baseline) if self.baseline is not None else NO_BASELINE
        specs = []
        for flag in self.flags:
            for trigger in flag.triggers:
                condition = trigger.when.condition
                relative = condition.relative
                least, grace, alarms = trigger.min_samples, trigger.unknown_grace, trigger.false_alarms
                alert = trigger.unknown_alert
                stored = baseline.value(flag.environment, flag.service, condition.label)
                spec = TriggerSpec(
                    name=trigger.name,
                    flag=flag.flag,
                    environment=flag.environment,
                    service=flag.service,
                    condition=condition,
                    safe_variant=flag.safe,
                    min_samples=condition.default_min_samples if least == "auto" else least,
                    unknown_grace=int(self.unknown_grace if grace is None else grace),
                    unknown_alert=int(self.unknown_alert if alert is None else alert),
                    keep_for=int(trigger.keep_for),
                    guard=trigger.guard == "control",
                    action=trigger.action,
                    shadow="shadow" in (self.mode, flag.mode, trigger.mode),
                    control_variant=(flag.control or flag.safe) if relative == "control" else None,
                    baseline=stored if relative == "baseline" else None,
                    fast=fast_by_default(condition) if trigger.fast is None else trigger.fast,
                    false_alarms=int(self.false_alarms if alarms is None else alarms),
                )
                if least == "auto":
                    longest = self.max_window if trigger.max_window is None else trigger.max_window
                    spec = with_auto(spec, stored, int(longest))
                specs.append(spec)
        return specs


def fast_by_default(condition: Condition) -> bool:
    """Is a condition fast unless its trigger says otherwise?"""
    return condition.counts_bad and condition.relative is None and condition.metric in _FAST
