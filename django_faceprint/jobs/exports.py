"""The columns of an export, masked or unmasked. Callers check permissions and write the access log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from django.db.models import Count, QuerySet, TextChoices
from django.utils import timezone, translation
from django.utils.functional import Promise
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables

from django_faceprint.client.codes import explain
from django_faceprint.models import MediaAsset, Plan, VerificationSession
from django_faceprint.models.certificates import certificate_name
from django_faceprint.models.session import NOT_LISTED
from django_faceprint.privacy.keys import SealBroken

from .spreadsheets import CSV, XLSX, Cell, Format

FORMATS: dict[str, Format] = {"export_csv": CSV(), "export_xlsx": XLSX()}


@dataclass(frozen=True)
class Column:
    """The head of a column, and a function that gives its cell for a session from :func:`read`."""

    head: str | Promise
    cell: Callable[[VerificationSession], Cell]


def _decrypted(session: VerificationSession, name: str) -> Cell:
    """An encrypted or masked value, or a text saying that it cannot be decrypted."""
    try:
        value: Cell = getattr(session, name)
    except SealBroken:
        return gettext("cannot be decrypted")
    return value


def _label(choices: type[TextChoices], value: str) -> Cell:
    """The label of a choice. Cached: ``get_…_display`` hashes all choices for each row."""
    return _label_in(translation.get_language(), choices, value)


@cache
def _label_in(language: str | None, choices: type[TextChoices], value: str) -> str:
    return str(choices(value).label)


def _local(moment: datetime | None) -> datetime | None:
    return timezone.localtime(moment) if moment is not None else None


def _liveness(session: VerificationSession) -> Cell:
    if not session.liveness_score and not session.plan.scores_liveness:
        return gettext("not applicable")
    return session.liveness_score


def _error(session: VerificationSession) -> Cell:
    if not session.error_class and not session.error_code:
        return ""
    return gettext(explain(session.error_code, session.error_class))


def _yes_no(value: bool | None) -> Cell:
    return {True: gettext("yes"), False: gettext("no")}.get(value, "")  # type: ignore[arg-type]


_COLUMNS = (
    Column(_("session ID"), lambda session: str(session.public_id)),
    Column(_("reference"), lambda session: session.reference),
    Column(_("purpose"), lambda session: session.purpose),
    Column(_("environment"), lambda session: _label(VerificationSession.Environment, session.environment)),
    Column(_("application"), lambda session: session.application),
    Column(_("plan ID"), lambda session: session.plan.plan_id),
    Column(_("plan"), lambda session: session.plan.name),
    Column(_("liveness"), lambda session: _label(Plan.Liveness, session.plan.liveness)),
    Column(_("created"), lambda session: _local(session.created_at)),
    Column(_("status"), lambda session: _label(VerificationSession.Status, session.status)),
    Column(_("verdict"), lambda session: _label(VerificationSession.Verdict, session.verdict)),
)
_MASKED = (
    Column(_("name (masked)"), lambda session: _decrypted(session, "masked_name")),
    Column(_("ID number (masked)"), lambda session: _decrypted(session, "masked_number")),
)
_UNMASKED = (
    Column(_("name"), lambda session: _decrypted(session, "known_name")),
    Column(_("ID number"), lambda session: _decrypted(session, "known_number")),
)
_MORE_COLUMNS = (
    Column(_("certificate type"), lambda session: certificate_name(session.certificate_type)),
    Column(
        _("similarity score"),
        lambda session: session.score if session.plan.compares_faces else gettext("not applicable"),
    ),
    Column(_("threshold"), lambda session: session.threshold),
    Column(_("liveness score"), _liveness),
    # Baidu answers 0 when it did not check (API reference 3.5).
    Column(_("spoofing score"), lambda session: session.spoofing_score or gettext("not checked")),
    Column(_("demoted"), lambda session: _yes_no(session.is_demoted)),
    Column(_("error code"), lambda session: session.error_code),
    Column(_("error"), _error),
    Column(_("log_id"), lambda session: session.error_log_id),
    Column(_("browser returned"), lambda session: _local(session.returned_at)),
    Column(_("verified"), lambda session: _local(session.verified_at)),
    Column(_("decided"), lambda session: _local(session.decided_at)),
    Column(_("archive"), lambda session: _label(VerificationSession.ArchiveState, session.archive_state)),
    Column(_("archived files"), lambda session: session.stored_files),  # type: ignore[attr-defined]
    Column(_("archived"), lambda session: _local(session.archived_at)),
    Column(_("media deadline"), lambda session: _local(session.media_deadline)),
    Column(_("kept until"), lambda session: _local(session.retain_until)),
    Column(_("erased"), lambda session: _local(session.erased_at)),
)


def columns(*, unmasked: bool) -> Sequence[Column]:
    """The columns, in order. *unmasked* chooses those of name and ID number."""
    return (*_COLUMNS, *(_UNMASKED if unmasked else _MASKED), *_MORE_COLUMNS)


def heads(*, unmasked: bool) -> list[str]:
    """The heads of the columns in the active language, capitalised."""
    return [capfirst(str(column.head)) for column in columns(unmasked=unmasked)]


@sensitive_variables()
def cells(sessions: Iterable[VerificationSession], *, unmasked: bool) -> Iterator[list[Cell]]:
    """A row for each of *sessions*, which come from :func:`read`."""
    chosen = columns(unmasked=unmasked)
    for session in sessions:
        yield [column.cell(session) for column in chosen]


def read(sessions: QuerySet[VerificationSession]) -> list[VerificationSession]:
    """*sessions* with plan and number of stored files, which the columns need, in three queries."""
    rows = list(sessions.defer(*NOT_LISTED))
    # Thousands of rows share a few plans.
    plans = Plan.objects.in_bulk({row.plan_id for row in rows})
    stored = MediaAsset.objects.stored().filter(session__in=[row.pk for row in rows]).order_by()
    counts = dict(stored.values_list("session").annotate(Count("pk")))
    for row in rows:
        row.plan = plans[row.plan_id]
        row.stored_files = counts.get(row.pk, 0)  # type: ignore[attr-defined]
    return rows
