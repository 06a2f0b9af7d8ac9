"""Finding records by what an operator has at hand, exactly and without personal data in a URL."""

from __future__ import annotations

from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from django_faceprint.models import UpstreamAnswer, UpstreamCall, VerificationSession


@sensitive_variables()
def matching(text: str) -> Q:
    """A filter for sessions whose reference, session ID or log_id is exactly *text*.

    Names, ID numbers and tokens are not looked up here: this text ends up in URLs and access logs.
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
