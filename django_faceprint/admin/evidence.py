"""A record's pictures, videos and raw answers. Every view is logged first."""

from __future__ import annotations

from uuid import UUID

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from django.views.decorators.http import require_safe

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import record_access
from django_faceprint.evidence.serving import log_media_view, media_response
from django_faceprint.models import AccessLog, MediaAsset, UpstreamAnswer
from django_faceprint.privacy.redaction import redacted

from . import labels
from .identity import opened
from .list_request import visible_records
from .pages import CHANNEL, admin_url, page, uncached, wants_json


def media_view(request: HttpRequest, asset_id: UUID, *, model_admin: admin.ModelAdmin) -> HttpResponseBase:
    """A picture or video, or a range of it, for users with ``view_media``; a file to keep for those who also
    have ``download_media``."""
    if not model_admin.has_view_permission(request) or not request.user.has_perm("faceprint.view_media"):
        raise PermissionDenied
    asset = MediaAsset.objects.stored().select_related("session").filter(public_id=asset_id).first()
    if asset is None or not visible_records(request, model_admin).filter(pk=asset.session_id).exists():
        raise Http404
    as_download = "download" in request.GET
    if as_download and not request.user.has_perm("faceprint.download_media"):
        raise PermissionDenied
    action = AccessLog.Action.DOWNLOAD_MEDIA if as_download else AccessLog.Action.VIEW_MEDIA
    log_media_view(request, asset, actor_of(request, CHANNEL), action)
    return media_response(request, asset, as_download=as_download)


@require_safe
@sensitive_variables()
def answer_view(
    request: HttpRequest, pk: int, answer_pk: int, *, model_admin: admin.ModelAdmin
) -> HttpResponseBase:
    """One raw answer of Baidu with personal data masked, as a page or as JSON."""
    session = model_admin.get_object(request, str(pk))
    if not model_admin.has_view_permission(request, session):
        raise PermissionDenied
    answer = session.answers.select_related("session").filter(pk=answer_pk).first() if session else None
    if answer is None:
        raise Http404
    if request.method == "GET":
        record_access(
            actor_of(request, CHANNEL), AccessLog.Action.VIEW_RECORD, session_id=answer.session.public_id
        )
    text = _redacted_answer(answer)
    problem = "" if text else gettext("Not shown: it is erased, or not JSON in which names could be masked.")
    if wants_json(request):
        return uncached(JsonResponse({"text": text, "problem": problem}))
    context = {
        "title": _("Answer of Baidu"),
        "original": session,
        "interface": labels.endpoint_name(answer.endpoint),
        "answer": answer,
        "text": text,
        "problem": problem,
        "record_url": admin_url(model_admin, "change", pk),
    }
    return uncached(page(request, model_admin, "verificationsession/answer.html", context))


def _redacted_answer(answer: UpstreamAnswer) -> str:
    """The answer with personal data masked; "" when it is erased or cannot be masked."""
    session = answer.session
    read = {**(opened(session, "ocr") or {}), **(opened(session, "confirmed") or {})}
    # Not dates and single characters, e.g. the gender: these also occur in values that are not personal.
    known = [text for name, text in read.items() if not name.endswith("_time")]
    known += [opened(session, name) for name in ("identity_name", "identity_number", "verify_token")]
    body = opened(answer, "body") or ""
    return redacted(body, known=[text for text in known if text and len(text) > 1]) or ""
