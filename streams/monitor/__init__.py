"""Stage 2: partials in, verdicts and health records out.

It may import streams.kafka, streams.decoders, streams.partials and lower floors, and detectors.
"""
