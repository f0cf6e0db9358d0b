"""Statistics that may be looked at every second; one file a detector.

It may import detectors.state and detectors.errors.
"""
