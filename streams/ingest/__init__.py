"""Stage 1: telemetry in, partials out.

It may import streams.kafka, streams.decoders, streams.partials and lower floors, and detectors.
"""
