"""Pure mathematics: counts in, verdicts out. No Kafka, no I/O, no clock of its own.

It may import neither streams nor agent.
"""
