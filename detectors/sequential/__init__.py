"""Statistics that stay valid however often they are checked; one file per detector.

It may import detectors.state and detectors.errors.
"""
