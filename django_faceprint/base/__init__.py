"""Deadlines, leases and events: what every room above the models needs to know of a row."""
