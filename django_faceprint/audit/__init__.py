"""Who looked at what, and the chain that proves the log whole."""
