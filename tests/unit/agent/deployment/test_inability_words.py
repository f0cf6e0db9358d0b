"""An inability in words: what would happen while it lasts, and that it is over when it is."""

from __future__ import annotations

import pytest

from agent.after_flip.events import flips_event, inability_event
from agent.events.cloudevents import INABILITY, Event
from agent.events.wording import sentence
from streams.condition import ShardCondition


def test_what_would_stop_a_flip_is_told_as_that_and_its_end_as_the_end() -> None:
    begun = flips_event("flipback.commands", ["backend files: flags.json: there is no such file"], at=1.0)
    assert sentence(begun) == "a flip would fail: backend files: flags.json: there is no such file"
    ended = flips_event("flipback.commands", [], at=2.0)
    assert sentence(ended) == "able again: every managed flag can be turned back"


def test_a_partition_that_cannot_be_judged_is_told_as_that_and_its_end_as_the_end() -> None:
    begun = inability_event("flipback.partials", 3, ShardCondition("unknown", "no ingest"), begun=True, at=1.0)
    assert sentence(begun) == "nothing can be judged: no ingest"
    ended = inability_event("flipback.partials", 3, ShardCondition("live", ""), begun=False, at=2.0)
    assert sentence(ended) == "able again: verdicts are live"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            {"reason": "flag still 'on' 30 s after the command"},
            "nothing was done: flag still 'on' 30 s after the command",
        ),
        ({"state": "begun", "status": "outage", "reason": "all fire"}, "nothing was done: all fire"),
        ({"state": "begun", "status": "of a later version", "reason": "r"}, "unable: r"),
        # What versions before wrote, and what is not there.
        ({"state": "ended", "status": "unable", "reason": ""}, "able again"),
        ({}, "nothing was done: no reason given"),
    ],
)
def test_no_sentence_ends_with_a_colon(data: dict[str, str], words: str) -> None:
    assert sentence(Event(type=INABILITY, subject="s", data=data, id="i", time=0.0)) == words
