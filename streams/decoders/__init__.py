"""Telemetry records to columns of samples; a new format is one file here.

It may import streams.telemetry, the ground of streams, and detectors.
"""
