"""The OpenAPI description, if drf-spectacular is installed; the API works without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

HAS_SPECTACULAR = find_spec("drf_spectacular") is not None
PROBLEM = "application/problem+json"
TAG = "faceprint"

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

#: Descriptions of the problems by status.
STATUSES = {
    400: "A value is refused; `field` and `errors` say which.",
    401: "Who calls is not known.",
    403: "The caller may not do this.",
    404: "There is no such thing, or not for this caller.",
    409: "The session is past this step.",
    410: "Baidu no longer knows the session's token.",
    412: "The file is not the one that `If-Match` names.",
    413: "The request is too large.",
    415: "The body is not of a type that is read here.",
    416: "The range lies outside the file.",
    422: "The Idempotency-Key came with another request before, or Baidu refuses the input.",
    429: "Too many requests.",
    500: "A mistake on our side.",
    502: "Baidu gave an answer that cannot be used.",
    503: "Baidu, the storage or the set-up does not let this happen now; see `Retry-After`.",
}
ALWAYS = (401, 403, 429, 500)


def field_schema(field: Any) -> Callable[[Any], Any]:
    """``extend_schema_field`` if drf-spectacular is installed, else a decorator that changes nothing."""
    if not HAS_SPECTACULAR:
        return lambda decorated: decorated
    from drf_spectacular.utils import extend_schema_field

    return extend_schema_field(field)


def operation(
    name: str,
    summary: str,
    *,
    answer: Any,
    status: int | tuple[int, ...] = 200,
    request: Any = None,
    problems: Sequence[int] = (),
    parameters: Sequence[Any] = (),
    path: Sequence[str] = (),
    headers: Sequence[tuple[str, str]] = (),
    media_types: Sequence[str] = ("application/json",),
) -> Callable[[Decorated], Decorated]:
    """Describe a view's method. ``path`` names UUIDs in the URL, ``headers`` are (name, meaning)."""
    if not HAS_SPECTACULAR:
        return lambda decorated: decorated
    from drf_spectacular.types import OpenApiTypes
    from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema

    from .problem_schema import ProblemSerializer

    statuses = status if isinstance(status, tuple) else (status,)
    responses: dict[Any, Any] = {
        (code, media_type): answer for code in statuses for media_type in media_types
    }
    for code in sorted({*ALWAYS, *problems}):
        responses[code, PROBLEM] = OpenApiResponse(ProblemSerializer, description=STATUSES[code])
    return extend_schema(
        operation_id=f"faceprint_{name}",
        summary=summary,
        tags=[TAG],
        request=request,
        responses=responses,
        parameters=[
            *(OpenApiParameter(item, OpenApiTypes.UUID, OpenApiParameter.PATH) for item in path),
            *(
                OpenApiParameter(item, OpenApiTypes.STR, OpenApiParameter.HEADER, description=meaning)
                for item, meaning in headers
            ),
            *parameters,
        ],
        filters=False,
    )


def only_faceprint(endpoints: list[tuple[str, str, str, Any]]) -> list[tuple[str, str, str, Any]]:
    """A preprocessing hook of drf-spectacular that leaves out the host's own views."""
    return [item for item in endpoints if getattr(item[3], "cls", object).__module__.startswith(__package__)]
