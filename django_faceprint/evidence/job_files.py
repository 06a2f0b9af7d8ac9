"""Finding and destroying the files of jobs that may contain given sessions."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import F

from django_faceprint.clock import now
from django_faceprint.models import Job, JobPart, UploadIntent


def that_may_hold(keys: Iterable[int]) -> list[Job]:
    """Jobs whose files may contain one of the sessions with these primary keys.

    A file counts when the key lies between its first and its last key, so some files may not contain the
    session; they can be made again. A running job reads later sessions as they are then.
    """
    wanted = sorted(keys)
    found = Job.objects.filter(pk__in=JobPart.objects.values("job"), first_key__isnull=False)
    return [
        job
        for job in found
        if any(job.first_key <= key <= job.cursor for key in wanted)  # type: ignore[operator]
    ]


def destroy(jobs: Iterable[Job], *, state: str = Job.State.EXPIRED) -> list[UploadIntent]:
    """Remove the parts of *jobs* and end running ones; call it in a transaction.

    Without their keys the files are noise at once. Returns intents that name the files; discard them after
    the transaction.
    """
    moment = now()
    intents = []
    for job in jobs:
        row = Job.objects.filter(pk=job.pk)
        row.update(state=state, wake_at=None, lease_epoch=F("lease_epoch") + 1)
        row.filter(finished_at=None).update(finished_at=moment)
        names = list(job.parts.values_list("stored_name", flat=True))
        job.parts.all().delete()
        intents += [UploadIntent.objects.create(name=name, created_at=moment) for name in names]
    return intents
