"""What a trigger is, and how a condition is written.

It may import detectors.errors and detectors.cells.
"""
