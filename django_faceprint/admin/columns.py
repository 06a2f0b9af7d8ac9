"""The columns of the record list."""

from __future__ import annotations

from django.contrib import admin
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import localtime
from django.utils.translation import gettext_lazy as _

from django_faceprint.clock import now
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.models.certificates import certificate_name

from . import labels, presentation, record


@admin.display(description=_("face"))
def face_column(session: VerificationSession) -> SafeString | str:
    """A blurred thumbnail, if there is one. For users with ``view_media``."""
    url = next(filter(None, map(presentation.thumbnail_url, _files(session))), "")
    return format_html('<img class="fp-thumbnail" src="{}" alt="">', url) if url else ""


@admin.display(description=_("status"))
def status_column(session: VerificationSession) -> SafeString | str:
    """The status, and an explanation of the error."""
    badge = presentation.status_badge(session)
    explanation = labels.describe_error(session.error_class, session.error_code)
    if not explanation:
        return str(badge)
    return format_html(
        '{}<span class="fp-sub fp-error" title="{} {}">{}</span>',
        badge,
        explanation,
        session.error_code,
        explanation,
    )


@admin.display(description=_("created"), ordering="created_at")
def created_column(session: VerificationSession) -> SafeString:
    """Day and time, in the reader's zone."""
    at = localtime(session.created_at)
    return format_html(
        '<time datetime="{}">{}<span class="fp-sub">{}</span></time>',
        at.isoformat(),
        date_format(at, "Y-m-d"),
        date_format(at, "H:i:s"),
    )


@admin.display(description=_("person"), empty_value=labels.EMPTY)
def person_column(session: VerificationSession) -> SafeString | None:
    """Name and ID number, masked, and the kind of document unless it is an ID card."""
    name, number = (presentation.masked(session, f"masked_{part}") for part in ("name", "number"))
    if not name and not number:
        return None
    document = certificate_name(session.certificate_type) if session.certificate_type else ""
    return format_html(
        '{}<span class="fp-sub fp-mono">{}</span>{}',
        name or labels.EMPTY,
        number,
        format_html('<span class="fp-sub fp-ellipsis" title="{}">{}</span>', document, document)
        if document
        else "",
    )


@admin.display(description=_("reference / purpose"))
def reference_column(session: VerificationSession) -> SafeString:
    """The host's reference, and the purpose."""
    return format_html(
        '<span class="fp-reference" title="{0}">{1}</span>'
        '<span class="fp-sub fp-ellipsis" title="{2}">{2}</span>',
        session.reference,
        session.reference or labels.EMPTY,
        session.purpose,
    )


@admin.display(description=_("plan"))
def plan_column(session: VerificationSession) -> SafeString:
    """Plan and kind of liveness, and the environment if it is the sandbox."""
    plan = session.plan
    sandbox = session.environment == VerificationSession.Environment.SANDBOX
    return format_html(
        '<span title="{}">{}</span>{}<span class="fp-sub fp-ellipsis">{}</span>',
        plan.name,
        plan.plan_id,
        format_html(' <span class="fp-quiet">{}</span>', session.get_environment_display())
        if sandbox
        else "",
        plan.get_liveness_display(),
    )


@admin.display(description=_("similarity / liveness / synthetic"), ordering="score")
def score_column(session: VerificationSession) -> SafeString:
    """The score and its threshold; below, the scores for liveness and a synthetic picture, or why there are
    none."""
    similarity: SafeString | str = labels.similarity(session)
    if session.score is not None and session.threshold is not None and session.plan.compares_faces:
        similarity = format_html(
            '<span class="fp-score{}"><b>{}</b> / {}</span>',
            " fp-low" if session.score < session.threshold else "",
            similarity,
            labels.number(session.threshold),
        )
    return format_html(
        '{}<span class="fp-sub">{} · {}</span>',
        similarity,
        labels.liveness(session),
        labels.spoofing(session.spoofing_score),
    )


@admin.display(description=_("archive"), ordering="next_deadline")
def archive_column(session: VerificationSession) -> SafeString:
    """State, stored and expected files, and the time left to the earliest deadline."""
    files = _files(session)
    expected = presentation.expected_count(files)
    stored = sum(asset.state == MediaAsset.State.STORED for asset in files)
    left = record.time_left(session, files, now())
    return format_html(
        '{} <span class="fp-count">{}</span><span class="fp-sub{}">{}</span>',
        presentation.archive_badge(session),
        f"{stored}/{expected}" if expected else "",
        " fp-urgent" if left is not None and left.is_urgent else "",
        left.sentence if left is not None else "",
    )


@admin.display(description=_("kept until"))
def retention_column(session: VerificationSession) -> SafeString | str:
    """The day on which identity and evidence will be, or were, erased."""
    if session.erased_at:
        return format_html(
            '{}<span class="fp-sub">{}</span>',
            date_format(localtime(session.erased_at), "Y-m-d"),
            _("erased"),
        )
    return date_format(localtime(session.retain_until), "Y-m-d") if session.retain_until else labels.EMPTY


def _files(session: VerificationSession) -> list[MediaAsset]:
    files: list[MediaAsset] = session.listed_assets  # type: ignore[attr-defined]
    return files
