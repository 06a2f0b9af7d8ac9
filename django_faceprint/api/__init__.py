"""The REST API: serializers check shapes, the rooms below decide, errors are problem details (RFC 9457)."""
