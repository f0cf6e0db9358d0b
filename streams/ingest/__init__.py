"""Stage 1: telemetry in, partials out; decides which samples are late, the watermark, and the committed offsets.

It may import streams.kafka, streams.decoders, streams.partials and lower floors, and detectors.
"""
