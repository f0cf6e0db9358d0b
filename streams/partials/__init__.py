"""The record between the stages: one source partition's closed seconds for one partials partition, as packed columns.

It may import floor 0 of streams, and detectors.
"""
