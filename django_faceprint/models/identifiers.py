"""Public identifiers of rows."""

from __future__ import annotations

import secrets
import uuid

from django_faceprint.clock import now


def time_ordered_uuid() -> uuid.UUID:
    """A UUID that sorts by creation time (version 7, RFC 9562): 48 bits of milliseconds, 74 random bits.

    Ordered ids keep indexes of large tables compact. The random bits make them unguessable, but no access
    decision relies on that.
    """
    milliseconds = int(now().timestamp() * 1000) & ((1 << 48) - 1)
    value = (milliseconds << 80) | (0x7 << 76) | (secrets.randbits(12) << 64)
    value |= (0b10 << 62) | secrets.randbits(62)
    return uuid.UUID(int=value)
