"""What of a window is missing: too late, rejected or without an outcome; and which instances can still be judged.

It may import detectors.windows, detectors.conditions and the ground.
"""
