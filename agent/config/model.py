"""The configuration file as a whole: every setting, its meaning and its default."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from agent.backends.settings import Backend
from agent.commands.keys import PRIVATE_NAME, PUBLIC_NAME
from agent.config.baseline import NO_BASELINE, Baseline, read_baseline
from agent.config.flags import Environment, Flag, Mode, Name
from agent.config.min_samples import HEALTHY_BAD_SHARE
from agent.config.triggers import TriggerTimes, resolve
from detectors.conditions.metric_table import METRIC_TABLE, DriftMetric
from detectors.conditions.spec import FALSE_ALARMS, TriggerSpec
from streams.monitor.drift_watch import DriftTarget, Method
from streams.settings import KafkaSettings, Seconds, TelemetrySettings, WholeSeconds, seconds, whole_seconds


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
        """Return how many flags may be turned back within `within` if so many are managed: one at least."""
        # Rounded, because in floating point 0.29 times 100 is a little less than 29.
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
        DriftMetric, Meta(description="The ratio; its habit is the baseline file's value, else 0.5 % bad.")
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


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
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

    @property
    def trigger_times(self) -> TriggerTimes:
        """The durations of a trigger that does not set its own."""
        return TriggerTimes(self.max_window, self.false_alarms, self.unknown_grace, self.unknown_alert)

    def trigger_specs(self) -> list[TriggerSpec]:
        """Return the triggers of all flags in the file's order, every default filled in.

        Raises ConfigError if the baseline file cannot be read, SpecError if the configuration was not checked.
        """
        return list(self._specs)

    @cached_property
    def _specs(self) -> tuple[TriggerSpec, ...]:
        return tuple(resolve(self.flags, self.mode, self.trigger_times, self._stored))

    @cached_property
    def _stored(self) -> Baseline:
        # Read once: all values of a process come from the same content, even if the file is replaced meanwhile.
        return read_baseline(self.baseline) if self.baseline is not None else NO_BASELINE

    def drift_targets(self) -> list[DriftTarget]:
        """Return the ratios that are watched for drift, each with its usual share of bad requests.

        The share is the baseline file's, else 0.5 %. Raises ConfigError if that file cannot be read.
        """
        baseline = self._stored
        found = []
        for one in self.drift:
            value = baseline.value(one.environment, one.service, one.metric)
            good = METRIC_TABLE[one.metric].good_is_high
            bad = HEALTHY_BAD_SHARE if value is None else 1 - value if good else value
            found.append(DriftTarget(one.environment, one.service, one.metric, one.method, (bad,)))
        return found
