"""The page of replays agrees with the replays of real recordings."""

from __future__ import annotations

from tests.oracle.replays import DOCS, RECORDINGS, pages


def test_the_page_of_replays_and_its_pictures_are_what_the_replays_give() -> None:
    made = pages({name: recording.run() for name, recording in RECORDINGS.items()})
    for name, content in made.items():
        assert (DOCS / name).read_text() == content, name
