"""Telemetry records to columns of samples; a new format is one file here.

It may import floor 0 of streams, and detectors.
"""
