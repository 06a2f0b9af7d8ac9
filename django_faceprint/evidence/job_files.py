"""The files of jobs: which of them may hold a record, and destroying them."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import F

from django_faceprint.clock import now
from django_faceprint.models import Job, JobPart, UploadIntent


def that_may_hold(keys: Iterable[int]) -> list[Job]:
    """Jobs whose files may hold one of these records, by its key.

    What counts is whether the key lies between the first and the last one of the file, so that a file may
    be named in which the record is not; it can be made anew. What a running job has not reached yet it will
    find as it is then.
    """
    wanted = sorted(keys)
    found = Job.objects.filter(pk__in=JobPart.objects.values("job"), first_key__isnull=False)
    return [
        job
        for job in found
        if any(job.first_key <= key <= job.cursor for key in wanted)  # type: ignore[operator]
    ]


def destroy(jobs: Iterable[Job], *, state: str = Job.State.EXPIRED) -> list[UploadIntent]:
    """Take the files of *jobs* away, and end those that run; to be called in a transaction.

    Without their keys the files are noise at once. Returns intents that name the files, to be deleted when
    the transaction has ended.
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
