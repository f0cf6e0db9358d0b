"""The Kafka side of the bench: generated telemetry, the measured workers, and a plain Faust agent to compare with.

It may import everything in streams, and detectors.
"""
