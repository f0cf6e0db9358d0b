"""Telemetry records to columns of samples, and numbers for their scopes (`max_scopes`); a new format is one file here.

It may import floor 0 of streams, and detectors.
"""
