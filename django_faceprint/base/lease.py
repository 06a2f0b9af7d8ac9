"""The right to work on one session: fenced by an epoch, given back with the next wake-up time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models import BooleanField, Case, DateTimeField, F, Value, When

from django_faceprint.clock import now
from django_faceprint.models import VerificationSession

from .deadlines import NO_DEADLINES, PendingDeadlines

#: Celery's soft and hard limits of one task, and how long a session may be held from its claim on, all in
#: seconds. A task must be dead before that is over, and it must be over before a broker delivers the message
#: again.
SOFT_TIME_LIMIT = 240
HARD_TIME_LIMIT = 300
MAX_LEASE_SECONDS = 420
MAX_LEASE = timedelta(seconds=MAX_LEASE_SECONDS)


class LeaseLost(Exception):
    """Another worker, or an erasure, has taken the session over: stop, nothing more may be written."""


@dataclass(frozen=True)
class Release:
    """When to look again (None: never, all is done) and the safe deadlines of what is outstanding."""

    wake_at: datetime | None
    pending: PendingDeadlines = NO_DEADLINES

    def columns(self) -> dict[str, Any]:
        """The columns that give a session back; at once due again if a recheck was requested meanwhile.

        In this order: MySQL sets columns one after the other, and ``wake_at`` reads ``recheck_requested``.
        """
        return {
            "wake_at": Case(
                When(recheck_requested=True, then=Value(now(), output_field=DateTimeField())),
                default=Value(self.wake_at, output_field=DateTimeField(null=True)),
                output_field=DateTimeField(null=True),
            ),
            "priority_at": None,
            "lease_until": None,
            "recheck_requested": Value(False, output_field=BooleanField()),
            **self.pending.columns(),
        }


@dataclass(frozen=True)
class Lease:
    """The right to work on one session, as long as ``epoch`` is still the row's.

    Until when it is good stands in the row. ``row`` is the session as it was claimed, where the claim has
    read it, ``since`` when that was, and ``priority_at`` what it was ordered by.
    """

    session_pk: int
    epoch: int
    row: VerificationSession | None = field(default=None, compare=False, repr=False)
    since: datetime | None = field(default=None, compare=False, repr=False)
    priority_at: datetime | None = field(default=None, compare=False, repr=False)

    def session(self) -> VerificationSession:
        """The session as it is in the database. Raises :class:`LeaseLost`."""
        session = (
            VerificationSession.objects.select_related("plan")
            .filter(pk=self.session_pk, lease_epoch=self.epoch)
            .first()
        )
        if session is None:
            raise LeaseLost
        return session

    @contextmanager
    def fenced(self) -> Iterator[None]:
        """A transaction that holds the session's row and whose writes count only under this lease.

        Raises :class:`LeaseLost` before anything is written when the lease is no longer ours.
        """
        with transaction.atomic():
            self.update(lease_epoch=F("lease_epoch"))
            yield

    def update(self, **values: Any) -> None:
        """Change columns of the session. Raises :class:`LeaseLost` when the lease is no longer ours."""
        held = VerificationSession.objects.filter(pk=self.session_pk, lease_epoch=self.epoch)
        if held.update(**values) != 1:
            raise LeaseLost
