"""Flag systems. Each is one file that keeps the promises of `agent.backends.contract`."""
