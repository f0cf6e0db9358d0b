"""The sentences that the demo shows before and after it. All numbers in the closing are measured."""

from __future__ import annotations

from collections.abc import Iterator

from agent.demo.load import Load
from agent.demo.scene import FAULT_AFTER, FAULT_RATE, FLAG, HOLD, INSTANCES, RATE, TRIGGER, USUAL_HOLD, Scene
from agent.demo.steps import FlipStep
from agent.demo.story import Story


def percent(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.1%}"


def opening(scene: Scene) -> Iterator[str]:
    """What the demo is going to show, in lines of at most 79 characters."""
    broker = "an embedded broker" if scene.embedded else f"Kafka {scene.brokers}"
    yield f"shop     {len(INSTANCES)} instances, {RATE} HTTP requests/s; telemetry to {broker}"
    yield f"release  {FLAG} is on, the new path, for half of the users"
    yield f"fault    after {FAULT_AFTER:.0f} s of traffic, {FAULT_RATE:.0%} of the new path's requests fail"
    yield f"trigger  {TRIGGER}  (shortened for the demo, from {USUAL_HOLD} to {HOLD} s)"


def closing(story: Story, load: Load) -> Iterator[str]:
    """The result of a demo in which all steps were seen."""
    between = story.timeline.between
    total = between(FlipStep.INJECTED, FlipStep.OLD_PATH) or 0.0
    decided = between(FlipStep.INJECTED, FlipStep.FIRING) or 0.0
    pending = between(FlipStep.PENDING, FlipStep.FIRING) or 0.0
    yield f"Turned off in {total:.2f} s, from the fault to the first user back on the old path:"
    yield f"  {decided:6.2f} s  until the trigger fired, {pending:.2f} s of them pending (`for {HOLD}s`)"
    read_back = between(FlipStep.FIRING, FlipStep.READ_BACK) or 0.0
    yield f"  {read_back:6.2f} s  from there to a flag that was written and read back"
    yield f"  {between(FlipStep.FIRING, FlipStep.OLD_PATH) or 0.0:6.2f} s  from there to the first user on the old path"
    if story.evidence is not None:
        evidence = story.evidence
        errors, requests = evidence.counts["errors"], evidence.counts["requests"]
        yield f"Evidence: {errors:,} errors in {requests:,} requests of {evidence.sources} instances."
    yield f"The users saw {load.failed:,} of {load.sent:,} requests fail."
