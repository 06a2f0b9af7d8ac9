"""Jobs: an action on a frozen selection of records, worked through by key, in steps that survive a crash.

A step writes its result and moves the cursor in one transaction, which only the worker that holds the job can
commit. So a worker that dies costs one step, and one that wakes after an hour writes nothing. The same
function works on jobs in a request, in a Celery task and in ``faceprint_run``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone, translation
from django.views.decorators.debug import sensitive_variables

from django_faceprint.audit.access import Actor, Reason, record_access
from django_faceprint.base.hold import hold, is_free
from django_faceprint.clock import now
from django_faceprint.engine import refresh
from django_faceprint.evidence import erasure, files, job_files
from django_faceprint.exceptions import InvalidInput
from django_faceprint.models import AccessLog, Job, JobPart, UploadIntent, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.records.filters import Selection
from django_faceprint.upstream import clients

from . import bundle, exports
from .spreadsheets import ROWS_OF_SHEET, Piece

logger = logging.getLogger(__name__)

Kind, State = Job.Kind, Job.State

#: How long a file can be downloaded, and how long the job itself is kept.
FILE_LIFE = timedelta(hours=24)
JOB_KEPT = timedelta(days=90)
#: How long a worker holds a job from the beginning of a step; a step takes seconds.
STEP_LEASE = timedelta(minutes=7)
#: Time until a failed job is tried again, and the failures after which it is given up.
AGAIN_AFTER = timedelta(minutes=1)
MAX_FAILURES = 5
#: Records of one step, and of one certificate of an erasure.
ROWS_OF_PART = 5_000
ROWS_OF_STEP = 100
#: Records of one export.
MAX_ROWS = 5_000_000
BATCH = 100
assert ROWS_OF_SHEET % ROWS_OF_PART == 0  # noqa: S101  (no part lies across two sheets)


class JobTaken(Exception):
    """Another worker holds the job, or it was cancelled: stop, and write nothing more."""


class ErasedMeanwhile(Exception):
    """A record was erased while a file about it was written: the step is done again."""


@dataclass
class _Held:
    """A job that we may work on, as long as its ``lease_epoch`` is still ours."""

    job: Job
    selection: Selection

    def write(self, **columns: Any) -> None:
        """Change columns of the job. Raises :class:`JobTaken` when it is ours no more."""
        held = Job.objects.filter(pk=self.job.pk, lease_epoch=self.job.lease_epoch, state=State.RUNNING)
        if held.update(**columns) != 1:
            raise JobTaken
        for name, value in columns.items():
            setattr(self.job, name, value)

    def next_rows(self, count: int) -> VerificationSessionQuerySet:
        """The records that follow, at most *count*."""
        return self.selection.queryset().filter(pk__gt=self.job.cursor).order_by("pk")[:count]

    @property
    def actor(self) -> Actor:
        job = self.job
        return Actor(job.actor_name, job.channel, job.actor_id, job.address)


@sensitive_variables()
def create(
    kind: str,
    selection: Selection,
    *,
    actor: Actor,
    reason: Reason | None = None,
    unmasked: bool = False,
    with_log: bool = False,
) -> Job:
    """Create the job of *actor*: *kind* for *selection*, frozen as of now. Nothing is done yet.

    An export and a bundle are written to the access log here. Language and time zone are those that are
    active. *with_log*: a bundle holds the access log of its record. The caller has checked permissions, and
    the reason where *unmasked*.

    Raises :class:`InvalidInput` for ``selection`` (``unknown``, a filter that is not understood; ``empty``;
    ``too_large``).
    """
    frozen = selection.frozen()
    if frozen.problems:
        raise InvalidInput("selection", "unknown", "A filter is not understood.")
    counted = frozen.queryset()[: MAX_ROWS + 1].count()
    if not counted:
        raise InvalidInput("selection", "empty", "No record is selected.")
    if counted > MAX_ROWS:
        raise InvalidInput("selection", "too_large", f"At most {MAX_ROWS} records.", {"limit": MAX_ROWS})
    moment = now()
    job = Job(
        kind=kind,
        **actor.columns(),
        address=actor.address,
        reason_code=reason.code if reason else "",
        reason=(reason.text or None) if reason else None,
        unmasked=unmasked,
        with_log=with_log,
        selection=frozen.to_json(),
        language=translation.get_language() or "en",
        time_zone=timezone.get_current_timezone_name(),
        total=counted,
        created_at=moment,
        wake_at=moment,
    )
    with transaction.atomic():
        job.save(force_insert=True)
        if kind in Job.FILE_KINDS:
            session_id = None
            if kind == Kind.BUNDLE:
                session_id = frozen.queryset().values_list("public_id", flat=True).first()
            record_access(actor, AccessLog.Action.EXPORT, session_id=session_id, reason=reason)
    return job


def work_on_jobs(*, budget: timedelta, monotonic: Callable[[], float]) -> int:
    """Work on waiting jobs, the oldest first, until none is left or *budget* is over; returns the steps."""
    ends = monotonic() + budget.total_seconds()
    steps = 0
    while monotonic() < ends:
        job = _waiting().order_by("wake_at", "pk").first()
        if job is None:
            break
        steps += work_on(job, until=ends, monotonic=monotonic)
    return steps


def work_on(job: Job, *, until: float, monotonic: Callable[[], float]) -> int:
    """Work on *job* until it is finished or the monotonic clock reaches *until*; at least one step.

    Returns the number of steps; 0 when another worker has it. The row of *job* is read anew at the end.
    Raises ``RuntimeError`` inside a transaction: files are written.
    """
    clients.refuse_inside_transaction()
    held = _claim(job)
    if held is None:
        return 0
    steps = 0
    problem = ""
    try:
        with translation.override(job.language), timezone.override(job.time_zone):
            while True:
                steps += 1
                if _step(held):
                    break
                if monotonic() >= until:
                    held.write(wake_at=now())
                    break
                held.write(wake_at=now() + STEP_LEASE)
    except JobTaken:
        # Another worker goes on with it; our last step was not committed.
        pass
    except Exception as error:  # noqa: BLE001  (storages and databases raise what they like)
        problem = type(error).__name__
    if problem:
        logger.warning("faceprint: a step of job %s failed: %s", job.public_id, problem)
        _note_failure(held, problem[:30])
    job.refresh_from_db()
    return steps


def cancel(job: Job) -> bool:
    """Stop *job* and delete its files. False when it is finished already."""
    with transaction.atomic():
        stopped = Job.objects.filter(pk=job.pk, state__in=Job.UNFINISHED).update(wake_at=None)
        intents = job_files.destroy([job], state=State.CANCELLED) if stopped else []
    _discard(intents)
    job.refresh_from_db()
    return bool(stopped)


def open_file(job: Job) -> tuple[str, str, Iterator[bytes]]:
    """The file of *job*: its content type, its extension, and its bytes, decrypted on the way.

    The caller has checked permissions and logged the download. Raises :class:`InvalidInput` for ``job``
    (``gone``) when there is no file, or no more.
    """
    if not job.has_file or job.expires_at is None or job.expires_at <= now():
        raise InvalidInput("job", "gone", "There is no file.")
    pieces = [Piece(part.rows, partial(_read, part)) for part in job.parts.order_by("order")]
    if job.kind == Kind.BUNDLE:
        chunks = (chunk for piece in pieces for chunk in piece.chunks())
        return "application/zip", "zip", chunks
    form = exports.FORMATS[job.kind]
    with translation.override(job.language):
        heads = exports.heads(unmasked=job.unmasked)
    return form.content_type, form.extension, form.file(heads, pieces)


def delete_expired() -> int:
    """Delete expired files, and jobs that are older than 90 days; returns how many files."""
    moment = now()
    over = list(Job.objects.filter(expires_at__lte=moment, state=State.DONE)[:BATCH])
    with transaction.atomic():
        intents = job_files.destroy(over)
    _discard(intents)
    old = Job.objects.filter(created_at__lt=moment - JOB_KEPT, parts__isnull=True)
    old = old.exclude(state__in=Job.UNFINISHED)
    Job.objects.filter(pk__in=list(old.values_list("pk", flat=True)[:BATCH])).delete()
    return len(intents)


def _discard(intents: Iterable[UploadIntent]) -> None:
    """Delete the files now; retention tries again where storage refuses."""
    for intent in intents:
        erasure.discard(intent)


def _waiting() -> QuerySet[Job]:
    """Unfinished jobs that no worker holds."""
    return Job.objects.filter(is_free("wake_at", STEP_LEASE), wake_at__isnull=False)


def _claim(job: Job) -> _Held | None:
    ours = _waiting().filter(pk=job.pk, lease_epoch=job.lease_epoch)
    is_ours = hold(ours, "wake_at", STEP_LEASE, state=State.RUNNING, lease_epoch=F("lease_epoch") + 1)
    job.refresh_from_db()
    if not is_ours:
        return None
    held = _Held(job, Selection.from_json(job.selection))
    if job.started_at is None:
        held.write(started_at=now())
    return held


def _step(held: _Held) -> bool:
    """One step; returns whether it was the last one."""
    kind = held.job.kind
    if kind in exports.FORMATS:
        finished = _export(held)
    elif kind == Kind.BUNDLE:
        finished = _bundle(held)
    elif kind == Kind.ERASE:
        finished = _erase(held)
    else:
        finished = _refresh(held)
    if finished:
        moment = now()
        has_file = kind in Job.FILE_KINDS
        held.write(
            state=State.DONE,
            finished_at=moment,
            wake_at=None,
            expires_at=moment + FILE_LIFE if has_file else None,
        )
    return finished


@sensitive_variables()
def _export(held: _Held) -> bool:
    job = held.job
    rows = exports.read(held.next_rows(ROWS_OF_PART))
    if not rows:
        return True
    content = exports.FORMATS[job.kind].rows(exports.cells(rows, unmasked=job.unmasked), before=job.done)
    entries = []
    if job.unmasked:
        entries = [
            held.actor.entry(AccessLog.Action.EXPORT, session_id=row.public_id, reason_code=job.reason_code)
            for row in rows
        ]
    _add_part(held, rows, [content], entries=entries)
    return len(rows) < ROWS_OF_PART


def _bundle(held: _Held) -> bool:
    job = held.job
    rows = list(held.next_rows(1).select_related("plan"))
    if rows:
        pieces = bundle.Bundle(
            rows[0],
            unmasked=job.unmasked,
            language=job.language,
            made_by=job.actor_name,
            with_log=job.with_log,
        )
        _add_part(held, rows, pieces)
    return True


def _add_part(
    held: _Held,
    rows: Sequence[VerificationSession],
    chunks: Iterable[bytes],
    *,
    entries: Iterable[AccessLog] = (),
) -> None:
    """Write a file about *rows*, and refer to it and move on in one transaction, if the job is still ours."""
    job = held.job
    part = JobPart(job=job, order=job.parts.count(), rows=len(rows))
    (name,) = files.reserve_names(None, 1)
    try:
        for column, value in files.write_unchecked(part.public_id, name, chunks).items():
            setattr(part, column, value)
        files.rename_reserved(name, part.stored_name)
        with transaction.atomic():
            _refuse_erased(rows)
            held.write(
                cursor=rows[-1].pk,
                first_key=rows[0].pk if job.first_key is None else job.first_key,
                done=job.done + len(rows),
                failures=0,
            )
            if not files.end_reservations([part.stored_name]):
                raise JobTaken
            part.save(force_insert=True)
            AccessLog.objects.bulk_create(entries)
    except BaseException:
        files.discard([name])
        raise


def _refuse_erased(rows: Sequence[VerificationSession]) -> None:
    """Raise :class:`ErasedMeanwhile` when one of *rows* has been erased since it was read.

    An erasure that begins later finds the file by the cursor. One that is under way holds the rows: they are
    waited for, in the order in which it takes them, before the job's own row.
    """
    alive = [row.pk for row in rows if row.erased_at is None]
    there = VerificationSession.objects.select_for_update().filter(pk__in=alive).order_by("pk")
    if any(there.values_list("erased_at", flat=True)):
        raise ErasedMeanwhile


def _erase(held: _Held) -> bool:
    """One certificate for each step; the cursor moves with the erasure or not at all."""
    job = held.job
    rows = held.selection.queryset().filter(pk__gt=job.cursor, erased_at__isnull=True).order_by("pk")
    keys = list(rows.values_list("pk", flat=True)[:ROWS_OF_STEP])
    if not keys:
        return True
    erasure.erase(
        VerificationSession.objects.filter(pk__in=keys),
        reason=job.reason or "",
        actor=held.actor,
        also=lambda: held.write(cursor=keys[-1], done=job.done + len(keys), failures=0),
    )
    return len(keys) < ROWS_OF_STEP


def _refresh(held: _Held) -> bool:
    job = held.job
    rows = list(held.next_rows(ROWS_OF_STEP).select_related("plan"))
    skipped = sum(bool(refresh.request_refresh(row, job.kind, actor=held.actor)) for row in rows)
    if rows:
        held.write(
            cursor=rows[-1].pk,
            done=job.done + len(rows) - skipped,
            skipped=job.skipped + skipped,
            failures=0,
        )
    return len(rows) < ROWS_OF_STEP


def _note_failure(held: _Held, problem: str) -> None:
    """Plan the next try, or give up and delete the job's files."""
    job = held.job
    failures = job.failures + 1
    gives_up = failures >= MAX_FAILURES
    with transaction.atomic():
        ours = Job.objects.filter(pk=job.pk, lease_epoch=job.lease_epoch)
        if not ours.update(failures=failures, problem=problem, wake_at=now() + AGAIN_AFTER):
            return
        intents = job_files.destroy([job], state=State.FAILED) if gives_up else []
    _discard(intents)


def _read(part: JobPart) -> Iterator[bytes]:
    with files.open_sealed(part.public_id, part.stored_name, bytes(part.wrapped_key), part.size) as file:
        yield from file.iter_range(0, part.size)
