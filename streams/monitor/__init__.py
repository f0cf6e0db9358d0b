"""Stage 2: partials in, verdicts and health records out.

It may import streams.kafka, streams.decoders, streams.telemetry, partials, and detectors.
"""
