"""When evidence expires upstream: the arithmetic behind every deadline.

*Safe* deadlines assume the earliest possible expiry; they order the work and drive alerts. *Give-up times*
assume the latest possible expiry: until then the engine keeps trying, and only then is evidence lost.
Upstream's periods are those of API reference 1.2. A token was issued at some time between our request and
the answer, so safe deadlines count from the request and give-up times from the answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from django_faceprint.conf import conf
from django_faceprint.models import MediaAsset, VerificationSession

TOKEN_LIFE = timedelta(hours=2)
MEDIA_LIFE = timedelta(hours=24)
RESULTS_LIFE = timedelta(hours=72)
# Documents disagree on the face of result/simple (2 h or 3 d), so it is fetched as if it had 2 h.
FACE_LIFE_WORST_CASE = timedelta(hours=2)
#: Columns of a session for the deadlines of what is outstanding.
MAX_DEADLINES = 3
# A verify_time outside the token's life by more than this is a wrong clock or a wrong answer.
VERIFY_TIME_TOLERANCE = timedelta(minutes=10)


@dataclass(frozen=True)
class SessionDeadlines:
    """The deadlines of a whole session, all aware UTC."""

    expires_at: datetime
    media_deadline: datetime
    results_deadline: datetime
    media_give_up_at: datetime
    results_give_up_at: datetime

    def columns(self) -> dict[str, datetime]:
        """The columns of the session's row."""
        return asdict(self)


def session_deadlines(requested_at: datetime, answered_at: datetime) -> SessionDeadlines:
    """Deadlines that follow from when the verify_token was requested and answered."""
    latest_finish = answered_at + TOKEN_LIFE + conf.latest_grace
    return SessionDeadlines(
        expires_at=requested_at + TOKEN_LIFE,
        media_deadline=requested_at + MEDIA_LIFE,
        results_deadline=requested_at + RESULTS_LIFE,
        media_give_up_at=latest_finish + MEDIA_LIFE,
        results_give_up_at=latest_finish + RESULTS_LIFE,
    )


@dataclass(frozen=True)
class PendingDeadlines:
    """The safe deadlines of what is outstanding, in order: when one goes by, the next one counts.

    At most three differ: a face that may be gone after 2 h, recordings after 24 h, results after 72 h.
    """

    next_deadline: datetime | None = None
    later_deadline: datetime | None = None
    last_deadline: datetime | None = None

    @classmethod
    def of(cls, deadlines: Iterable[datetime | None], moment: datetime) -> PendingDeadlines:
        """Of these deadlines those after *moment*; when all are over, the one that was last."""
        known = sorted({deadline for deadline in deadlines if deadline is not None})
        ahead = [deadline for deadline in known if deadline > moment] or known[-1:]
        if len(ahead) > MAX_DEADLINES:
            ahead = [*ahead[: MAX_DEADLINES - 1], ahead[-1]]
        return cls(*ahead)

    def columns(self) -> dict[str, datetime | None]:
        """The columns of the session's row."""
        return asdict(self)


#: Nothing is outstanding that could expire.
NO_DEADLINES = PendingDeadlines()


def window_closes_at(session: VerificationSession) -> datetime | None:
    """From here on no attempt can be under way any more, clocks and mid-flow included."""
    if session.token_answered_at is None:
        return None
    return session.token_answered_at + TOKEN_LIFE + conf.latest_grace


def plausible_verify_time(session: VerificationSession, moment: datetime | None) -> datetime | None:
    """*moment* when it lies within the token's life, else None: upstream's word is checked, too."""
    closes_at = window_closes_at(session)
    if moment is None or session.token_requested_at is None or closes_at is None:
        return None
    first = session.token_requested_at - VERIFY_TIME_TOLERANCE
    return moment if first <= moment <= closes_at + VERIFY_TIME_TOLERANCE else None


def asset_deadlines(
    session: VerificationSession, kind: str, attempt_time: datetime | None = None
) -> tuple[datetime | None, datetime | None]:
    """Safe and latest deadline of one asset; (None, None) for what does not come from upstream."""
    if kind in (MediaAsset.Kind.MATCH_IMAGE, MediaAsset.Kind.THUMBNAIL):
        return None, None
    is_media = kind in MediaAsset.MEDIA_KINDS
    known = plausible_verify_time(session, attempt_time or session.verified_at)
    give_up_at = session.media_give_up_at if is_media else session.results_give_up_at
    if known is not None:
        return known + (MEDIA_LIFE if is_media else RESULTS_LIFE), give_up_at
    return (session.media_deadline if is_media else session.results_deadline), give_up_at


def ordering_deadline(session: VerificationSession, asset: MediaAsset) -> datetime | None:
    """The deadline by which work on *asset* is ordered; may be earlier than its safe deadline."""
    if asset.kind != MediaAsset.Kind.FACE:
        return asset.deadline
    base = session.verified_at or session.token_requested_at
    worst_case = base + FACE_LIFE_WORST_CASE if base else None
    return min(filter(None, (worst_case, asset.deadline)), default=None)


def undecided_deadlines(
    *,
    requested_at: datetime | None,
    media_deadline: datetime | None,
    results_deadline: datetime | None,
    records_video: bool,
    moment: datetime,
) -> PendingDeadlines:
    """By when a session without a verdict should be asked: as if it had passed right after its start."""
    if requested_at is None:
        return NO_DEADLINES
    face = requested_at + FACE_LIFE_WORST_CASE
    return PendingDeadlines.of([face, media_deadline if records_video else None, results_deadline], moment)


def outstanding_deadlines(
    session: VerificationSession,
    assets: Iterable[MediaAsset],
    moment: datetime,
    *,
    unknown: Iterable[datetime | None] = (),
) -> PendingDeadlines:
    """The deadlines of assets that are still wanted, and of those that may turn out to exist (*unknown*)."""
    dates = [date for asset in assets for date in (ordering_deadline(session, asset), asset.deadline)]
    return PendingDeadlines.of([*dates, *unknown], moment)
