"""The rollback agent: flags, commands, flag backends, control and the command line.

It may import streams and detectors.
"""
