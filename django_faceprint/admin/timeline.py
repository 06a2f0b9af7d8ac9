"""The timeline of one record: its milestones, calls to Baidu, archived files, and who viewed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TypeVar

from django.utils.translation import gettext

from django_faceprint.models import AccessLog, MediaAsset, UpstreamCall, VerificationSession

from . import labels
from .files import file_name

_Item = TypeVar("_Item")

#: From this many on, equal calls in a row, or equal views by one person, become one line.
COLLAPSE_FROM = 3


@dataclass(frozen=True)
class Event:
    """A line of the timeline. ``kind`` is ``step``, ``call`` or ``view``; ``times`` equal events end at
    ``until``."""

    at: datetime
    text: str
    tone: str = "quiet"
    details: list[str] = field(default_factory=list)
    times: int = 1
    until: datetime | None = None
    kind: str = "step"


def timeline(
    session: VerificationSession,
    assets: Iterable[MediaAsset],
    calls: Sequence[UpstreamCall],
    views: Sequence[tuple[AccessLog, str]],
) -> list[Event]:
    """All events, oldest first. *calls* and *views* come newest first; each view with its reason or ""."""
    events = [*_milestones(session), *_call_events(calls), *_archived_events(assets), *_view_events(views)]
    return sorted(events, key=lambda event: event.at)


def _milestones(session: VerificationSession) -> Iterator[Event]:
    issued_at = None if session.adopted_at else session.token_answered_at
    decided = gettext("Decided: %(verdict)s") % {"verdict": session.get_verdict_display()}
    for at, text, tone in (
        (session.created_at, gettext("Created"), "neutral"),
        (session.adopted_at, gettext("Adopted from another system"), "neutral"),
        (issued_at, gettext("Token issued"), "neutral"),
        (session.identity_accepted_at, gettext("Identity accepted"), "neutral"),
        (session.match_image_accepted_at, gettext("Match image accepted"), "neutral"),
        (session.returned_at, gettext("Browser returned"), "neutral"),
        (session.verified_at, gettext("Verified by Baidu"), "neutral"),
        (session.decided_at, decided, labels.STATUS_TONES[session.status]),
        (session.archived_at, gettext("Archive complete"), "good"),
        (session.erased_at, gettext("Identity and evidence erased"), "neutral"),
    ):
        if at is not None:
            yield Event(at, text, tone)


def _archived_events(assets: Iterable[MediaAsset]) -> Iterator[Event]:
    for asset in assets:
        if asset.archived_at is not None:
            text = gettext("Archived: %(file)s") % {"file": file_name(asset)}
            yield Event(asset.archived_at, text, "good")


def _call_events(calls: Sequence[UpstreamCall]) -> Iterator[Event]:
    for _, equal in groupby(reversed(calls), key=lambda call: (call.endpoint, call.outcome, call.code)):
        for run in _collapsed(list(equal)):
            yield _call_event(run)


def _call_event(run: list[UpstreamCall]) -> Event:
    first, last = run[0], run[-1]
    details = [labels.outcome_name(first.outcome)]
    if first.code:
        details.append(gettext("code %(code)s") % {"code": first.code})
    details.append(labels.format_seconds(sum(call.latency for call in run) / len(run)))
    if last.log_id:
        details.append(f"log_id {last.log_id}")
    return Event(
        at=first.at,
        text=labels.endpoint_name(first.endpoint),
        tone="quiet" if first.outcome in (UpstreamCall.OK, "not_started") else "warn",
        details=details,
        times=len(run),
        until=last.at if len(run) > 1 else None,
        kind="call",
    )


def _view_events(views: Sequence[tuple[AccessLog, str]]) -> Iterator[Event]:
    for _, equal in groupby(reversed(views), key=lambda view: (view[0].actor_id, view[0].action, view[1])):
        for run in _collapsed(list(equal)):
            first, reason = run[0]
            yield Event(
                at=first.at,
                text=f"{first.actor_name} · {first.get_action_display()}",
                details=[reason] if reason else [],
                times=len(run),
                until=run[-1][0].at if len(run) > 1 else None,
                kind="view",
            )


def _collapsed(equal: list[_Item]) -> list[list[_Item]]:
    return [equal] if len(equal) >= COLLAPSE_FROM else [[item] for item in equal]
