"""Writing what visits brought: many sessions in one transaction, each under its own lease.

A visit changes nothing but its own copy of the session; what is to be written is collected in
:class:`Changes`. Whether a session is still ours is decided by the update of its row: where that finds
another epoch, nothing of that session is written, and its files are removed again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from django.db import (
    DEFAULT_DB_ALIAS,
    DatabaseError,
    OperationalError,
    connections,
    transaction,
)
from django.db.models import Model

from django_faceprint.base import events
from django_faceprint.base.lease import Lease, LeaseLost, Release
from django_faceprint.evidence import files
from django_faceprint.models import (
    MediaAsset,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.fields import column_values

from .retry import DatabaseRetry, is_connected

logger = logging.getLogger(__name__)

_ASSET_COLUMNS = (
    *("public_id", "state", "reason", "source", "deadline", "give_up_at", "sha256", "size", "content_type"),
    *("width", "height", "duration", "plain_http", "stored_name", "wrapped_key", "tries", "error_class"),
    *("error_detail", "named_at", "ext_info", "archived_at", "retain_until", "thumbnail"),
)
_ATTEMPT_COLUMNS = (
    *("passed", "code", "message", "verified_at", "score", "threshold", "liveness_score", "spoofing_score"),
    *("risk_level", "risk_tag", "is_demoted", "is_charged", "charge_type", "verify_log_id"),
)


class _IntentGone(Exception):
    """Retention has taken an upload over: its file must not be referred to."""


@dataclass
class Changes:
    """What one visit wants to be written about its session, all of it or nothing.

    ``names`` are those of the visit's uploads that are settled: committed by this change, or deleted again.
    ``after`` is called after the commit. ``uncertain``: they may have been written without our knowing.
    """

    lease: Lease
    session: VerificationSession
    columns: dict[str, Any] = field(default_factory=dict)
    release: Release | None = None
    assets: dict[tuple[int, str, int], MediaAsset] = field(default_factory=dict)
    attempts: dict[int, VerificationAttempt] = field(default_factory=dict)
    answers: dict[tuple[str, str], UpstreamAnswer] = field(default_factory=dict)
    calls: list[UpstreamCall] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    stored: list[MediaAsset] = field(default_factory=list)
    after: list[Callable[[], None]] = field(default_factory=list)
    uncertain: bool = False

    def __bool__(self) -> bool:
        return bool(
            self.columns or self.release or self.assets or self.attempts or self.answers or self.names
        )


def commit(batch: Sequence[Changes], retry: DatabaseRetry) -> list[Changes]:
    """Write *batch*; returns those of it whose lease was lost, of which nothing was written.

    Where the database stays away longer than *retry* waits, its error passes; what was not written is done
    anew when the leases end.
    """

    def interrupted() -> None:
        # A commit may have gone through without our knowing: what it refers to must not be deleted.
        for changes in batch:
            changes.uncertain = True

    lost = retry(partial(_commit_together, batch), interrupted=interrupted, also_connected=True)
    for changes in lost:
        if not changes.uncertain:
            files.discard(changes.names)
    return lost


def commit_one(changes: Changes, retry: DatabaseRetry) -> None:
    """Write the changes of one visit. Raises :class:`LeaseLost`."""
    if commit([changes], retry):
        raise LeaseLost


def _commit_together(batch: Sequence[Changes]) -> list[Changes]:
    calls = [call for changes in batch for call in changes.calls]
    if calls:
        UpstreamCall.objects.bulk_create(calls)
        for changes in batch:
            changes.calls = []
    batch = [changes for changes in batch if changes]
    if not batch:
        return []
    try:
        return write_batch(batch)
    except (_IntentGone, DatabaseError) as error:
        if isinstance(error, OperationalError) and not is_connected():
            raise
    # One of them spoils it for all, or there was a deadlock: each for itself, then.
    return [changes for changes in batch if _is_lost_alone(changes)]


def _is_lost_alone(changes: Changes) -> bool:
    try:
        return bool(write_batch([changes]))
    except _IntentGone:
        return True


def write_batch(batch: Sequence[Changes]) -> list[Changes]:
    """Write *batch* in one transaction; returns those of it whose lease was lost."""
    lost: list[Changes] = []
    kept: list[Changes] = []
    with transaction.atomic():
        # In one order everywhere, so that two of these never wait for each other.
        for changes in sorted(batch, key=lambda item: item.lease.session_pk):
            try:
                changes.lease.update(**_session_columns(changes))
            except LeaseLost:
                lost.append(changes)
            else:
                kept.append(changes)
        _upsert(
            (asset for changes in kept for asset in changes.assets.values()),
            ("session", "attempt_order", "kind", "position"),
            _ASSET_COLUMNS,
        )
        _upsert(
            (attempt for changes in kept for attempt in changes.attempts.values()),
            ("session", "order"),
            _ATTEMPT_COLUMNS,
        )
        _upsert(
            (answer for changes in kept for answer in changes.answers.values()),
            ("session", "endpoint", "body_index"),
            # The first of equal answers stays as it is.
            ("endpoint",),
        )
        names = [name for changes in kept for name in changes.names]
        if names and not files.end_reservations(names):
            raise _IntentGone
        for changes in kept:
            for asset in changes.stored:
                transaction.on_commit(partial(events.asset_archived, asset))
            for call in changes.after:
                transaction.on_commit(call)
    return lost


def _session_columns(changes: Changes) -> dict[str, Any]:
    values = column_values(changes.session, changes.columns)
    if changes.release is not None:
        values |= changes.release.columns()
    return values or {"lease_epoch": changes.lease.epoch}


def _upsert(rows: Iterable[Model], identity: tuple[str, ...], columns: tuple[str, ...]) -> None:
    """Insert *rows*, or change those whose identity is there already. Their keys are not touched."""
    known = list(rows)
    fresh = [copy(row) for row in known]
    if not fresh:
        return
    for twin in fresh:
        # By its identity alone: two conflicts in one row are more than some databases resolve.
        twin.pk = None
        twin._state.adding = True
    model = type(fresh[0])
    features = connections[DEFAULT_DB_ALIAS].features
    model._default_manager.bulk_create(
        fresh,
        update_conflicts=True,
        update_fields=columns,
        unique_fields=identity if features.supports_update_conflicts_with_target else None,
    )
    for row, twin in zip(known, fresh, strict=True):
        row.pk = twin.pk
        row._state.adding = False
