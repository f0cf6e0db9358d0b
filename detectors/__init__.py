"""Pure mathematics: counts in, verdicts out. No Kafka, no I/O, no clock of its own."""
