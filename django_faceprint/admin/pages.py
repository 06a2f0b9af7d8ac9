"""What pages of the admin need: their surroundings, addresses, headers against caching, and forms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from django.contrib import admin
from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.debug import sensitive_variables

from django_faceprint.audit.access import Reason, checked_reason
from django_faceprint.exceptions import InvalidInput

from . import labels

#: The channel of the admin in the access log.
CHANNEL = "admin"
#: How long a confirmation page stays valid, in seconds.
LIFETIME = 900

_Response = TypeVar("_Response", bound=HttpResponse)


def page(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
) -> TemplateResponse:
    """Render *template* (below ``admin/faceprint/``) as a page of *model_admin*."""
    shown = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        **context,
    }
    # The links of the page lead into this site, should the project have more than one.
    request.current_app = model_admin.admin_site.name  # type: ignore[attr-defined]
    return TemplateResponse(request, f"admin/faceprint/{template}", shown, status=status)


def admin_url(model_admin: admin.ModelAdmin, view: str, *arguments: Any, model: str | None = None) -> str:
    """The address of *view* of *model* (default: the model of *model_admin*) in the same admin site."""
    name = f"admin:faceprint_{model or model_admin.opts.model_name}_{view}"
    return reverse(name, args=arguments, current_app=model_admin.admin_site.name)


def uncached(response: _Response) -> _Response:
    """*response* with headers that keep it out of caches, so that the back button does not show it again."""
    response["Cache-Control"] = "private, no-store"
    return response


def wants_json(request: HttpRequest) -> bool:
    """Whether a script of the page requests data instead of a page."""
    return request.headers.get("Accept", "").startswith("application/json")


def sign(request: HttpRequest, values: dict[str, Any], *, salt: str) -> str:
    """*values* as a token for the form field ``token``."""
    return signing.dumps({**values, "user": str(request.user.pk)}, salt=salt, compress=True)


def signed_values(request: HttpRequest, *, salt: str) -> dict[str, Any] | None:
    """The values of the posted token; None when it is forged, too old, or another user's."""
    try:
        values: dict[str, Any] = signing.loads(request.POST.get("token", ""), salt=salt, max_age=LIFETIME)
    except signing.BadSignature:
        return None
    return values if values.get("user") == str(request.user.pk) else None


@sensitive_variables()
def posted_reason(request: HttpRequest) -> tuple[Reason | None, str]:
    """The reason that was posted; or None and a message that says what is wrong with it."""
    try:
        return checked_reason(request.POST.get("reason", ""), request.POST.get("reason_text", "")), ""
    except InvalidInput as error:
        return None, labels.reason_problem(error)
