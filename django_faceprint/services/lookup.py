"""Finding records by what an operator has at hand, exactly and without personal data in a URL."""

from __future__ import annotations

from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from django_faceprint.models import UpstreamAnswer, UpstreamCall, VerificationSession
from django_faceprint.privacy.blind_index import Kind, blind_index_candidates


@sensitive_variables()
def matching(text: str) -> Q:
    """A filter for sessions whose reference, session ID or log_id is exactly *text*.

    Names, ID numbers and tokens are looked up by :func:`matching_person`: this text ends up in URLs.
    """
    text = text.strip()
    if not text or "\x00" in text:
        # PostgreSQL does not even take the question.
        return Q(pk__in=[])
    found = Q(reference__exactly=text) | Q(error_log_id__exactly=text)
    public_id = VerificationSession.parse_public_id(text)
    if public_id is not None:
        found |= Q(public_id=public_id)
    if text.isascii() and text.isdigit() and len(text) <= 40:
        found |= Q(pk__in=UpstreamAnswer.objects.filter(log_id=text).values("session_id"))
        found |= Q(pk__in=UpstreamCall.objects.filter(log_id=text).exclude(session=None).values("session_id"))
    return found


@sensitive_variables()
def matching_person(text: str) -> Q:
    """A filter for sessions whose ID number, name or verify_token is *text*, however it is written.

    For posted texts only, which come into no URL and no log. What someone has masked (``370***``) matches
    nothing. A number or name counts that was submitted or that the person confirmed.
    """
    text = text.strip()
    found = Q(pk__in=[])
    for column, kind in (
        ("number_index", Kind.ID_NUMBER),
        ("name_index", Kind.NAME),
        ("verify_token_index", Kind.VERIFY_TOKEN),
    ):
        candidates = blind_index_candidates(kind, text)
        if candidates:
            found |= Q(**{f"{column}__in": candidates})
    return found
