"""Which deadline counts for a record, and when it is at risk: the same for alerts, lists and forecasts.

The deadline of a record is the first safe deadline of its files that are still to be archived. While there is
no verdict, the person may have finished without our knowing, so what the record may yield counts as well:
recordings where its plan makes them, else results.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Case, DateTimeField, F, Q, QuerySet, When

from django_faceprint.conf import conf
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.models.asset import MediaAssetQuerySet

#: A record with less time than this to its deadline is at risk, unless the alert rule says otherwise.
RISK_WINDOW = timedelta(hours=6)

_Verdict = VerificationSession.Verdict


def deadline_of(session: VerificationSession, wanted: Iterable[MediaAsset]) -> datetime | None:
    """The deadline of *session*, whose files *wanted* are still to be archived; None: it has none."""
    dates = [asset.deadline for asset in wanted]
    if session.verdict == _Verdict.PENDING:
        dates.append(session.media_deadline if session.plan.records_video else session.results_deadline)
    return min(filter(None, dates), default=None)


def is_undecided_until(moment: datetime) -> Q:
    """Sessions without a verdict whose deadline is not after *moment*, whatever files are known of."""
    # Every media deadline is the earlier of the two: with its index few rows are read.
    due = Q(plan__records_video=True) | Q(results_deadline__lte=moment)
    return Q(verdict=_Verdict.PENDING, media_deadline__lte=moment) & due


def wanted_files() -> MediaAssetQuerySet:
    """The files of the present environment that are still to be archived."""
    return MediaAsset.objects.wanted().filter(session__environment=conf.environment)


def undecided() -> QuerySet[Any]:
    """Sessions of the present environment without a verdict; ``deadline`` is that of what they may yield."""
    sessions = VerificationSession.objects.filter(environment=conf.environment, verdict=_Verdict.PENDING)
    return sessions.annotate(
        deadline=Case(
            When(plan__records_video=True, then=F("media_deadline")),
            default=F("results_deadline"),
            output_field=DateTimeField(),
        )
    )
