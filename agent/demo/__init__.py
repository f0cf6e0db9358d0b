"""The demo: a bad release of a small real service, turned off before your eyes."""
