"""Kafka and Faust: telemetry in, per-second statistics and verdicts out.

It may import detectors.
"""
