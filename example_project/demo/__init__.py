"""The demo: real processes, real HTTP, and a verdict by the sandbox's ledger."""
