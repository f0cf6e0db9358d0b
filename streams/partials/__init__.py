"""The record between the stages: one source partition's closed seconds for one partials partition, as packed columns.

It may import streams.errors, slices, unreadable, and detectors.
"""
