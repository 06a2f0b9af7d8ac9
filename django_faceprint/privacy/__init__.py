"""Ciphers, blind indexes, masking and redaction. No module here knows about sessions."""
