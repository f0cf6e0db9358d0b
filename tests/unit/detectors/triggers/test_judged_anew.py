"""After a flag has changed, a proof uses only later requests; its shown value is of a window that reaches further
back."""

from __future__ import annotations

from collections.abc import Sequence

from agent.after_flip.events import transition_event
from agent.views.status_lines import trigger_line
from detectors.cells import Scope
from streams.monitor.evaluated_second import EvaluatedSecond
from streams.monitor.health import TriggerHealth, decoder, encoder
from streams.monitor.shard import Shard
from tests.support.cells import Cell, cells
from tests.unit.streams.monitor.test_shard import ON, SERVICE, T, said, shard, spec

OFF = Scope("production", "shop", "new", "off")
PROOF = spec("error_rate@on > control", name="worse")
HELD = spec("error_rate@on > 20% over 10s for 5s", name="held")
CHANGED = T + 30.4


def feed(target: Shard, begin: int, counts: Sequence[tuple[int, int]]) -> list[EvaluatedSecond]:
    """Feed seconds of (requests, errors) of `on`; `off` has ten requests and no error in each."""
    found: list[EvaluatedSecond] = []
    for at, (requests, errors) in enumerate(counts, begin):
        on, off = Cell({"requests": requests, "errors": errors}), Cell({"requests": 10})
        whole = Cell({"requests": requests + 10, "errors": errors})
        block = cells(at, (SERVICE, whole), (ON, on), (OFF, off)) if requests else cells(at, (SERVICE, off), (OFF, off))
        found += target.take(said(at + 1.0, block), at + 3.0)
    return found


def flipped() -> tuple[Shard, list[EvaluatedSecond]]:
    """Return a shard after a flag's variant failed for ten seconds and was rolled back, and the 60 seconds since."""
    target = shard(PROOF, HELD)
    before = feed(target, T, [(10, 0)] * 20 + [(10, 4)] * 10)
    assert verdict(before[-1], "worse").state == "firing"
    target.flag_changed("production", "new", CHANGED, None, safe=True)
    return target, feed(target, T + 30, [(0, 0)] * 60)


def verdict(second: EvaluatedSecond, name: str) -> TriggerHealth:
    assert second.health is not None
    return next(one for one in second.health.triggers if one.trigger == name)


def test_an_ok_beside_a_value_beyond_the_threshold_says_since_when_it_is_judged() -> None:
    _, after = flipped()
    seen = verdict(after[0], "worse")
    assert (seen.state, seen.judged_since) == ("ok", T + 31)
    assert seen.value is not None
    assert seen.threshold is not None
    assert seen.value > seen.threshold
    assert seen.reason == "judged anew since the flag changed at 22:13:51, the value is of the last 60 s"
    assert seen.reason in trigger_line(seen, "error_rate")
    assert b'"judged_since":1700000031' in encoder.encode(seen)


def test_it_says_so_until_the_window_holds_nothing_from_before_the_change() -> None:
    target, after = flipped()
    assert {verdict(second, "worse").judged_since for second in after} == {T + 31}
    (later,) = feed(target, T + 90, [(0, 0)])
    assert later.time - 60 == T + 31
    assert b"judged_since" not in encoder.encode(verdict(later, "worse"))


def test_a_trigger_that_is_judged_by_its_window_says_nothing_of_it() -> None:
    _, after = flipped()
    assert {verdict(second, "held").judged_since for second in after} == {None}
    assert verdict(after[0], "held").state == "firing"


def test_a_verdict_that_follows_from_the_change_names_the_version_it_judges() -> None:
    _, after = flipped()
    (made,) = [transition_event(*change) for change in after[0].transitions if change[0] is PROOF]
    assert (made.data["to"], made.data["flag_since"]) == ("ok", T + 31)
    # The event has the time of the evaluation, not the later time at which the commands of that second were written.
    judged = transition_event(*after[0].transitions[0], after[0].judged_at)
    assert (judged.time, judged.recorded) == (T + 31, T + 33)
    assert made.data["reason"].startswith("judged anew since the flag changed at")


def test_a_flag_that_never_changed_has_verdicts_of_no_version() -> None:
    seconds = feed(shard(PROOF), T, [(10, 0)] * 20 + [(10, 4)] * 10)
    changes = [transition_event(*change) for second in seconds for change in second.transitions]
    assert changes
    assert not any("flag_since" in made.data for made in changes)


def test_a_value_that_is_worse_without_proof_says_how_far_the_proof_is() -> None:
    seen = verdict(feed(shard(PROOF), T, [(10, 0)] * 20 + [(10, 1)])[-1], "worse")
    assert (seen.state, seen.judged_since) == ("ok", None)
    assert seen.reason.startswith("not proven: evidence ")
    assert seen.reason.endswith("< 6.908 nats")


def test_a_health_record_without_the_field_is_read_as_before() -> None:
    _, after = flipped()
    assert after[-1].health is not None
    assert decoder.decode(encoder.encode(after[-1].health)) == after[-1].health
