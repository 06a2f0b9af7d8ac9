"""The demo: real processes, real HTTP, and a verdict that comes from the sandbox's own ledger."""
