"""What a trigger is, and the grammar of its condition.

It may import detectors.cells and floor 0 of detectors.
"""
