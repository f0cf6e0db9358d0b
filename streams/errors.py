"""Exceptions of streams. A bad record raises none: it is counted as rejected, with a reason.

StreamsError
├── LayoutError           a columnar batch does not have its layout
├── PartialError          a record of the partials topic cannot be read
├── CheckpointError       a checkpoint cannot be read, or is too large to be written
├── ClockError            something was judged by a clock that was wrong
├── TopicError            a topic cannot be created or described
└── DriftUnavailable      drift is to be detected, but the library for it is not installed

Messages say what, where, what was expected and what to do.
"""

from __future__ import annotations


class StreamsError(Exception):
    """Root of the errors of streams."""


class LayoutError(StreamsError):
    pass


class PartialError(StreamsError):
    pass


class CheckpointError(StreamsError):
    pass


class ClockError(StreamsError):
    """Something was judged by a clock that was wrong."""


class TopicError(StreamsError):
    pass


class DriftUnavailable(StreamsError):
    pass
