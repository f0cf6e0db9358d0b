"""Fake flag systems on loopback, for rehearsals and tests: real protocols, real preconditions, and injected faults."""
