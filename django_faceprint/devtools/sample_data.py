"""Synthetic records in any number, as years of use leave them: to try the console and to measure it.

Works only in a sandbox. People, numbers and references are made up; every reference begins with
:data:`PREFIX`, by which the records are found and removed. No file is stored: rows say that files are
archived, a few have a thumbnail, and opening one fails. The engine leaves the records alone, as they are not
due.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from uuid import UUID

from django.db import reset_queries, transaction
from django.utils.timezone import localtime

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.evidence import files as evidence_files
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import (
    ConsentRecord,
    MediaAsset,
    Plan,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.records import rollups

from .bulk_insert import Table
from .sample_drafts import PLANS, PREFIX, Rng, Rows
from .sample_files import Files
from .sample_sessions import SessionMaker

__all__ = ["BATCH", "PLANS", "PREFIX", "THUMBNAILS", "Files", "Filled", "fill", "remove", "sample_records"]

BATCH = 5_000
#: Default number of records, the newest of a run, that get a thumbnail.
THUMBNAILS = 1_000

#: Weights of the hours of a day, of a weekend's day, and of the last day, so that there is something to do.
HOURS = (2, 1, 1, 1, 1, 2, 5, 12, 30, 62, 70, 58, 36, 46, 64, 66, 58, 46, 30, 24, 20, 16, 9, 4)
WEEKEND = 0.4
LAST_DAY = 2.0


@dataclass
class Filled:
    """Numbers of rows that a run has made or removed so far."""

    sessions: int = 0
    files: int = 0
    attempts: int = 0


Progress = Callable[[Filled], None]


def sample_records() -> VerificationSessionQuerySet:
    """The records that :func:`fill` made."""
    return VerificationSession.objects.filter(
        plan__plan_id__in=PLANS,
        environment=VerificationSession.Environment.SANDBOX,
        reference__startswith=PREFIX,
    )


def fill(
    count: int,
    *,
    years: float = 2.0,
    seed: int = 1,
    batch: int = BATCH,
    files: Files = "main",
    thumbnails: int = THUMBNAILS,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Filled:
    """Add *count* records that began within the last *years*; the same ones for a *seed*, except for times.

    A further run adds others, numbered on. *files*: rows for no file, for the main kinds (face, video, match
    image), or for all. *thumbnails*: how many of the newest records get one. Writes *batch* records per
    transaction, and calls *stop* before each batch and *progress* after it.

    Raises :class:`FaceprintConfigurationError` outside of a sandbox.
    """
    _require_sandbox()
    plans = _make_plans()
    last = sample_records().order_by("-pk").values_list("reference", flat=True).first()
    first = int(last.rpartition("-")[2]) + 1 if last else 1
    rng = Rng(f"{seed}/{first}")
    moment = now()
    maker = SessionMaker(plans, rng, moment, seed=seed, people=first + count, files=files)
    times = _times(count, years, moment, rng)
    tables = [
        Table(model)
        for model in (VerificationSession, MediaAsset, VerificationAttempt, ConsentRecord, UpstreamCall)
    ]
    done = Filled()
    for start in range(0, count, batch):
        if stop():
            break
        rows = Rows()
        for number in range(start, min(start + batch, count)):
            maker.add(rows, first + number, next(times), with_thumbnail=count - number <= thumbnails)
        _write(tables, rows)
        done.sessions += len(rows.sessions)
        done.files += len(rows.assets)
        done.attempts += len(rows.attempts)
        _end_batch(done, progress)
    for table in tables:
        table.analyze()
    rollups.recount_all()
    return done


def remove(
    *, batch: int = BATCH, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
) -> Filled:
    """Remove every record that :func:`fill` made, and the plans; entries of the access log stay.

    Raises :class:`FaceprintConfigurationError` outside of a sandbox.
    """
    _require_sandbox()
    done = Filled()
    while not stop() and (
        rows := list(sample_records().order_by("pk").values_list("pk", "public_id")[:batch])
    ):
        _remove([pk for pk, _ in rows], [public_id for _, public_id in rows], done)
        _end_batch(done, progress)
    Plan.objects.filter(plan_id__in=PLANS, sessions__isnull=True).delete()
    rollups.recount_all()
    return done


def _require_sandbox() -> None:
    """Raise :class:`FaceprintConfigurationError` where real people are, or may be, verified."""
    if not conf.debug:
        raise FaceprintConfigurationError("Records are made up only while DEBUG is on.")
    if conf.environment == "live":
        raise FaceprintConfigurationError("Records are made up in a sandbox only, and API_URL is Baidu.")


def _end_batch(done: Filled, progress: Progress | None) -> None:
    # While DEBUG is on, each connection keeps the texts of its statements.
    reset_queries()
    if progress is not None:
        progress(done)


def _remove(pks: list[int], public_ids: list[UUID], done: Filled) -> None:
    sessions = VerificationSession.objects.filter(pk__in=pks)
    files = MediaAsset.objects.filter(session__in=pks)
    # A user may have had a real file of a made-up record archived.
    real = files.exclude(stored_name="").exclude(stored_name__startswith=PREFIX)
    names = list(real.order_by().values_list("stored_name", flat=True))
    with transaction.atomic():
        UpstreamCall.objects.filter(session__in=pks).delete()
        ConsentRecord.objects.filter(session_id__in=public_ids).delete()
        done.attempts += VerificationAttempt.objects.filter(session__in=pks).delete()[0]
        done.files += files.delete()[0]
        sessions.delete()
    done.sessions += len(pks)
    evidence_files.discard(names)


def _make_plans() -> list[Plan]:
    aliases = list(conf.applications) or ["default"]
    return [
        Plan.objects.update_or_create(
            plan_id=plan_id,
            # More than one application where there is more than one, so that there is something to filter.
            defaults={**values, "application": aliases[number // 4 % len(aliases)], "is_active": False},
        )[0]
        for number, (plan_id, values) in enumerate(PLANS.items())
    ]


def _times(count: int, years: float, moment: datetime, rng: Rng) -> Iterator[datetime]:
    """*count* times in order, by the weights of hours and days, and more of them of late."""
    hours = max(round(years * 365.25 * 24), 24)
    shares = [_share_of_hour(moment - timedelta(hours=hours - place), place, hours) for place in range(hours)]
    bounds = [0.0, *accumulate(shares)]
    for number in range(count):
        at = (number + rng.random()) / count * bounds[-1]
        place = min(max(bisect_left(bounds, at) - 1, 0), hours - 1)
        part = (at - bounds[place]) / shares[place]
        yield moment - timedelta(hours=hours - place - min(part, 0.9999))


def _share_of_hour(begin: datetime, place: int, hours: int) -> float:
    local = localtime(begin)
    share = HOURS[local.hour] * (WEEKEND if local.weekday() >= 5 else 1.0) * (0.7 + 0.6 * place / hours)
    return share * LAST_DAY if place >= hours - 24 else share


def _write(tables: Sequence[Table], rows: Rows) -> None:
    """Write one batch in a transaction."""
    sessions, *others = tables
    with transaction.atomic(using=sessions.using):
        sessions.insert(rows.sessions)
        ids = [values["public_id"] for values in rows.sessions]
        keys = dict(VerificationSession.objects.filter(public_id__in=ids).values_list("public_id", "pk"))
        for values in (*rows.assets, *rows.attempts, *rows.calls):
            values["session_id"] = keys[ids[values["session_id"]]]
        for table, own in zip(others, (rows.assets, rows.attempts, rows.consents, rows.calls), strict=True):
            table.insert(own)
