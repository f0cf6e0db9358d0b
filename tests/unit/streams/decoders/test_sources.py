"""What counts as one source of evidence, as the configuration binds it."""

from __future__ import annotations

import pytest

from streams.decoders.decoder import Decoder
from streams.decoders.interner import Interner
from streams.decoders.sources import pattern_of
from streams.decoders.watch_list import WatchList
from streams.ingest.reducer import Reducer
from streams.settings import Format
from streams.slices import Slice, Source
from streams.telemetry.sample import Sample
from tests.support.samples import T0, TOPIC, cells_by_scope, records_of

HOST = "([^/]+)/"


def sources(rule: str, *names: str | None, form: Format = "json", partition: int = 3) -> dict[str, int]:
    """Requests by source, of one request of each instance."""
    interner = Interner(WatchList.of([]))
    decoder = Decoder({TOPIC: form}, interner, {TOPIC: rule})
    reducer = Reducer(Source(TOPIC, partition), interner, 2.0)
    for offset, name in enumerate(names):
        values = records_of([Sample(ts=T0 + 0.5, service="cart", status=200, instance=name)], form)
        reducer.add(decoder.decode(Slice(Source(TOPIC, partition), [*values], [offset], [-1], {})), T0 + 9.0)
    (cell,) = cells_by_scope([reducer.close(T0 + 10.0)]).values()
    return {name: counts["requests"] for name, counts in cell.instances.items()}


@pytest.mark.parametrize("form", ["json", "ndjson", "json-array", "columnar"])
def test_two_workers_of_a_host_are_one_source(form: Format) -> None:
    names = ("host-1/worker-1", "host-1/worker-2", "host-2/worker-1", "host-1/worker-1", "alone", None)
    assert sources(HOST, *names, form=form) == {"host-1": 3, "host-2": 1, "alone": 1, "": 1}


def test_a_source_is_an_instance_unless_it_is_bound() -> None:
    assert sources("instance", "host-1/worker-1", "host-1/worker-2") == {"host-1/worker-1": 1, "host-1/worker-2": 1}


def test_a_partition_is_one_source_whatever_names_come_in_it() -> None:
    assert sources("partition", "a", "b", None, partition=7) == {f"{TOPIC}/7": 3}


def test_a_host_that_is_an_instance_too_is_the_same_source() -> None:
    assert sources(HOST, "host-1", "host-1/worker-1", "host-1") == {"host-1": 3}


@pytest.mark.parametrize(
    ("rule", "said"),
    [("(", "no regular expression"), ("[^/]+", "with 0 groups, expected 1"), ("(a)(b)", "with 2 groups, expected 1")],
)
def test_a_rule_that_is_none_is_refused(rule: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace("(", r"\(")):
        pattern_of(rule)
