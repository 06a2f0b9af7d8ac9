"""The REST API: serializers check shapes, services decide, errors are problem details (RFC 9457)."""
