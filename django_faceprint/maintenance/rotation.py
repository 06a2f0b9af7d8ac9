"""Key rotation: re-encrypt everything stored with the newest keys while the engine keeps running.

Every sealed value and every index names its key, so a rotation needs no saved position: an interrupted one
starts again and skips values that are done.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from django.apps import apps
from django.db import IntegrityError, transaction
from django.db.models import Model, QuerySet
from django.views.decorators.debug import sensitive_variables

from django_faceprint.audit.chain import renewed_mac
from django_faceprint.clock import now
from django_faceprint.evidence.answers import content_index
from django_faceprint.models import (
    AccessSeal,
    AccessToken,
    JobPart,
    MediaAsset,
    UpstreamAnswer,
    VerificationSession,
)
from django_faceprint.privacy.blind_index import blind_index, is_current
from django_faceprint.privacy.fields import EncryptedField, encrypted_fields
from django_faceprint.privacy.files import rewrap_file_key
from django_faceprint.privacy.keys import SealBroken, encryption_ring

#: Maximum number of rows that are read, or locked and changed, at a time.
BATCH = 200
#: Until this age a start may be repeated with its Idempotency-Key across a rotation. Its digest cannot be
#: made again, as the request is not kept; later, key and digest are dropped.
REPEATED_WITHIN = timedelta(days=1)


@dataclass(frozen=True)
class BrokenValue:
    """A value that no key opens: its place and the error, without its content."""

    model: str
    pk: Any
    column: str
    why: str


@dataclass
class RotationReport:
    """The result of one rotation. ``rows`` were read; ``changed`` counts rows by the name of their model.

    ``repeatable`` counts starts of the last day, which may still be repeated: their digests need the old
    index key until a later rotation.
    """

    rows: int = 0
    repeatable: int = 0
    changed: Counter[str] = field(default_factory=Counter)
    broken: list[BrokenValue] = field(default_factory=list)


@sensitive_variables()
def rotate_keys(
    *,
    dry_run: bool = False,
    progress: Callable[[RotationReport, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> RotationReport:
    """Re-encrypt values that are not under the newest key, and compute indexes of old keys again.

    Memory stays flat and rows are locked only briefly. Run it when all processes have the new keys, or they
    keep writing with old ones. Values that do not open are reported and left unchanged. *progress* receives
    the report so far and the number of rows at the start; *stop* is called between batches.

    Raises :class:`FaceprintConfigurationError` for unusable keys.
    """
    encryption_ring()
    report = RotationReport()
    total = sum(rows.count() for rows in _tables())
    for rows in _tables():
        for batch in _batches(rows):
            if stop is not None and stop():
                return report
            report.rows += len(batch)
            _rotate(rows, batch, report, dry_run=dry_run)
            if progress is not None:
                progress(report, total)
    return report


def _tables() -> list[QuerySet[Any]]:
    models = [
        model
        for model in apps.get_app_config("faceprint").get_models()
        if model in (MediaAsset, JobPart, AccessSeal) or encrypted_fields(model)
    ]
    return [model._default_manager.order_by("pk").only(*_columns(model)) for model in models]


def _columns(model: type[Model]) -> list[str]:
    """The columns of *model* that a rotation reads."""
    extra: dict[type[Model], tuple[str, ...]] = {
        MediaAsset: ("public_id", "wrapped_key"),
        JobPart: ("public_id", "wrapped_key"),
        AccessSeal: ("digest", "mac", "sealed_at"),
        VerificationSession: (
            *("verify_token_index", "name_index", "number_index"),
            *("request_digest", "created_at"),
        ),
        AccessToken: ("token_index",),
        UpstreamAnswer: ("body_index", "log_id"),
    }
    own = [name for column in encrypted_fields(model) for name in (column.uuid_field, column.name)]
    return ["pk", *own, *extra.get(model, ())]


def _batches(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    last = None
    while batch := list((rows if last is None else rows.filter(pk__gt=last))[:BATCH]):
        last = batch[-1].pk
        yield batch


def _rotate(rows: QuerySet[Any], batch: list[Any], report: RotationReport, *, dry_run: bool) -> None:
    outdated = []
    for row in batch:
        changes, broken = _changes(row)
        report.broken += broken
        report.repeatable += _is_repeatable(row)
        if changes:
            outdated.append(row.pk)
    name = rows.model._meta.model_name or ""
    if dry_run or not outdated:
        report.changed[name] += len(outdated)
        return
    with transaction.atomic():
        # Checked again under the lock: the engine may have changed the rows since.
        for row in rows.select_for_update().filter(pk__in=outdated):
            changes, _ = _changes(row)
            if changes:
                report.changed[name] += 1
                _write(row, changes, report)


def _write(row: Any, changes: dict[str, Any], report: RotationReport) -> None:
    if isinstance(row, AccessSeal):
        AccessSeal.objects.renew_mac(row, changes["mac"])
        return
    table = type(row)._default_manager.filter(pk=row.pk)
    with suppress(IntegrityError), transaction.atomic():
        table.update(**changes)
        return
    if isinstance(row, UpstreamAnswer):
        # The same answer was stored again under the new key meanwhile: one of the two is enough.
        table.delete()
    else:
        # The only other unique column.
        why = "Another row has the same value."
        report.broken.append(BrokenValue(row._meta.model_name, row.pk, "verify_token_index", why))


def _changes(row: Any) -> tuple[dict[str, Any], list[BrokenValue]]:
    """New values of the columns of *row* that need rewriting, and its broken values."""
    changes: dict[str, Any] = {}
    broken: list[BrokenValue] = []

    def attempt(column: str, make: Callable[[], dict[str, Any]]) -> None:
        try:
            changes.update(make())
        except SealBroken as error:
            broken.append(BrokenValue(row._meta.model_name, row.pk, column, str(error)))

    for column in encrypted_fields(type(row)):
        attempt(column.name, partial(_resealed, row, column))
    if isinstance(row, MediaAsset | JobPart):
        attempt("wrapped_key", lambda: _rewrapped(row))
    elif isinstance(row, AccessSeal):
        attempt("mac", lambda: {"mac": mac} if (mac := renewed_mac(row)) else {})
    elif isinstance(row, VerificationSession):
        attempt("verify_token_index", lambda: _token_index(row))
        attempt("name_index", lambda: _identity_index(row, "name_index", "name", "known_name"))
        attempt("number_index", lambda: _identity_index(row, "number_index", "id_number", "known_number"))
        if not is_current(row.request_digest) and not _is_repeatable(row):
            changes |= {"idempotency_key": None, "request_digest": ""}
    elif isinstance(row, AccessToken) and not is_current(row.token_index):
        attempt("token_index", lambda: {"token_index": blind_index("access_token", row.token or "")})
    elif isinstance(row, UpstreamAnswer) and not is_current(row.body_index):
        attempt("body_index", lambda: _body_index(row))
    return changes, broken


def _resealed(row: Any, column: EncryptedField) -> dict[str, Any]:
    sealed = column.sealed_of(row)
    if sealed is None or encryption_ring().is_current(sealed.token):
        return {}
    return {column.name: column.reseal(column.row_of(row), sealed)}


def _rewrapped(file: MediaAsset | JobPart) -> dict[str, Any]:
    wrapped = bytes(file.wrapped_key) if file.wrapped_key is not None else None
    if wrapped is None or encryption_ring().is_current(wrapped):
        return {}
    return {"wrapped_key": rewrap_file_key(wrapped, file.public_id)}


def _token_index(session: VerificationSession) -> dict[str, Any]:
    if session.verify_token is None or is_current(session.verify_token_index or ""):
        return {}
    return {"verify_token_index": blind_index("verify_token", session.verify_token)}


def _identity_index(session: VerificationSession, column: str, kind: str, source: str) -> dict[str, Any]:
    if is_current(getattr(session, column)):
        return {}
    return {column: blind_index(kind, getattr(session, source) or "")}


def _is_repeatable(row: Any) -> bool:
    return (
        isinstance(row, VerificationSession)
        and not is_current(row.request_digest)
        and row.created_at > now() - REPEATED_WITHIN
    )


def _body_index(answer: UpstreamAnswer) -> dict[str, Any]:
    return {} if answer.body is None else {"body_index": content_index(answer.body, answer.log_id)}
