"""Badges, masked identities and thumbnails: how every page of the admin shows a row."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext

from django_faceprint.evidence.thumbnails import open_thumbnail_of
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.keys import SealBroken

from . import labels

State = MediaAsset.State


@dataclass(frozen=True)
class Badge:
    """A short text on a coloured background. ``tone`` is good, bad, busy, warn or quiet. Renders as HTML."""

    text: str
    tone: str

    def __str__(self) -> SafeString:
        return format_html('<span class="fp-badge fp-{}">{}</span>', self.tone, self.text)

    __html__ = __str__


@dataclass(frozen=True)
class RecordSummary:
    """One record in a table of several: status, masked identity and the sentence that explains the status."""

    session: VerificationSession
    status: Badge
    name: str
    number: str
    sentence: str
    url: str

    @classmethod
    def of(cls, session: VerificationSession, url: str) -> RecordSummary:
        """The summary of *session*, which needs its plan; *url* is the address of its page."""
        return cls(
            session=session,
            status=status_badge(session),
            name=masked(session, "masked_name"),
            number=masked(session, "masked_number"),
            sentence=labels.status_reason(session),
            url=url,
        )


def status_badge(session: VerificationSession) -> Badge:
    """The status of *session*."""
    return Badge(str(session.status.label), labels.STATUS_TONES[session.status])


def archive_badge(session: VerificationSession) -> Badge:
    """The archive state of *session*."""
    state = VerificationSession.ArchiveState(session.archive_state)
    return Badge(str(state.label), labels.ARCHIVE_TONES[state])


def masked(session: VerificationSession, attribute: str) -> str:
    """``masked_name`` or ``masked_number``; says so when the row cannot be decrypted, instead of failing."""
    try:
        return str(getattr(session, attribute))
    except SealBroken:
        return gettext("cannot be decrypted")


def expected_count(assets: Iterable[MediaAsset]) -> int:
    """How many files are or should be archived. Files that Baidu never provides do not count, nor those
    deleted by a retention rule: an archive whose video was deleted after 30 days is still complete."""
    return sum(asset.state not in (State.NOT_PROVIDED, State.ERASED) for asset in assets)


def thumbnail_url(asset: MediaAsset) -> str:
    """The blurred thumbnail of *asset* as a ``data:`` URL, or "". Only for users with ``view_media``."""
    content = open_thumbnail_of(asset)
    return "" if content is None else f"data:image/jpeg;base64,{base64.b64encode(content).decode('ascii')}"
