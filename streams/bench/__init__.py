"""The Kafka side of the bench: telemetry of a made-up shop, the measured workers, and a plain Faust agent beside."""
