"""Ciphers, blind indexes and masking. Knows nothing of sessions."""
