"""Pages of the console that are no lists: what all of them have around what each of them shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

_Response = TypeVar("_Response", bound=HttpResponse)


def page(
    request: HttpRequest,
    model_admin: admin.ModelAdmin,
    template: str,
    context: Mapping[str, Any],
    *,
    status: int = 200,
) -> TemplateResponse:
    """The page of *model_admin* that *template*, such as ``job/change_form.html``, makes of *context*."""
    shown = {
        **model_admin.admin_site.each_context(request),
        "opts": model_admin.opts,
        "media": model_admin.media,
        **context,
    }
    # The links of the page lead into this site, should the project have more than one.
    request.current_app = model_admin.admin_site.name  # type: ignore[attr-defined]
    return TemplateResponse(request, f"admin/faceprint/{template}", shown, status=status)


def fresh(response: _Response) -> _Response:
    """*response*, never to be kept, so that the back button does not show it again."""
    response["Cache-Control"] = "private, no-store"
    return response
