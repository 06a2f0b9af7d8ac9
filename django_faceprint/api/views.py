"""The views of the API: permissions, the shape of requests and responses, and one call each."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.db import transaction
from django.http import Http404, HttpRequest
from django.http.response import HttpResponseBase
from django.utils.translation import gettext_lazy as _
from django.views.decorators.debug import sensitive_variables
from rest_framework.parsers import BaseParser, MultiPartParser
from rest_framework.permissions import BasePermission, IsAuthenticated
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.reverse import reverse
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from django_faceprint.actors import actor_of
from django_faceprint.audit.access import Reason, checked_reason, record_access
from django_faceprint.engine import queue
from django_faceprint.evidence import erasure
from django_faceprint.evidence.serving import log_media_view, media_response
from django_faceprint.exceptions import InvalidInput, replace_exceptions
from django_faceprint.models import AccessLog, Erasure, MediaAsset, Plan, VerificationSession
from django_faceprint.tasks import notify_worker
from django_faceprint.verification import (
    Consent,
    Identity,
    MatchImage,
    StartRequest,
    prepare_session,
    register_session,
    submit_identity,
    upload_match_image,
    withdraw,
)
from django_faceprint.verification.state import refuse_erased

from . import filters, serializers
from .parsers import PICTURE_BODY, SMALL_BODY, InMemoryUpload, StrictJSONParser
from .permissions import (
    MayAddTo,
    MayErase,
    MayRefresh,
    MayReveal,
    MayView,
    MayViewMedia,
    MayWithdraw,
)
from .problems import Problem, answer_problem
from .schema import operation

CHANNEL = "api"
IDEMPOTENCY_KEY = "Idempotency-Key"
_VISIBLE_ASCII = re.compile(r"[!-~]{1,80}")


class FaceprintView(APIView):
    """Base of all views: callers are authenticated, bodies bounded, nothing cached, errors have one form.

    No view runs inside a transaction, also under ``ATOMIC_REQUESTS``: Baidu may take a minute, and the error
    of a failed call must stay on its record.
    """

    permission_classes: Sequence[type[BasePermission]] = (IsAuthenticated,)
    renderer_classes = (JSONRenderer,)
    parser_classes: Sequence[type[BaseParser]] = (StrictJSONParser,)
    versioning_class = None
    #: Maximum size of a request's body in bytes.
    max_body = SMALL_BODY
    #: The session of the call, as soon as it is known; problems name it.
    session: VerificationSession | None = None

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        """The view as a function, outside transactions."""
        return transaction.non_atomic_requests(super().as_view(**initkwargs))

    @sensitive_variables()
    def dispatch(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        """As usual; error reports do not show variables of the functions that it calls."""
        return super().dispatch(request, *args, **kwargs)

    def initialize_request(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Request:
        """Keep a form's files in memory; set before anything parses the form."""
        if not hasattr(request, "_files"):
            request.upload_handlers = [InMemoryUpload(request)]
        return super().initialize_request(request, *args, **kwargs)

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """Refuse a body whose ``Content-Length`` is too large, then as usual."""
        length = str(request.META.get("CONTENT_LENGTH") or "0")
        # int() refuses thousands of digits; 19 digits are too many bytes in any case.
        if not length.isdecimal() or len(length) > 18 or int(length) > self.max_body:
            raise RequestDataTooBig("The request body is too large.")
        super().initial(request, *args, **kwargs)

    def perform_content_negotiation(self, request: Request, force: bool = False) -> Any:
        """Always JSON, whatever ``Accept`` says."""
        return super().perform_content_negotiation(request, force=True)

    def get_exception_handler(self) -> Callable[..., Response | None]:
        """Our problem details, for these views only."""
        return answer_problem

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        """Keep personal data out of every cache."""
        answer = super().finalize_response(request, response, *args, **kwargs)
        answer.setdefault("Cache-Control", "private, no-store")
        answer.setdefault("X-Content-Type-Options", "nosniff")
        return answer

    def checked(self, serializer: type[Serializer], data: Any) -> dict[str, Any]:
        """*data* as validated by *serializer*. Raises ``ValidationError``."""
        shape = serializer(data=data)
        shape.is_valid(raise_exception=True)
        return shape.validated_data

    def find_session(self, request: Request, text: str) -> VerificationSession:
        """The caller's session with the id *text*; 404 when there is none or it is another's."""
        public_id = VerificationSession.parse_public_id(text)
        visible = VerificationSession.objects.visible_to(request.user).select_related("plan")
        session = visible.filter(public_id=public_id).first() if public_id else None
        if session is None:
            raise Http404
        self.check_object_permissions(request, session)
        self.session = session
        return session

    def shown(self, request: Request, session: VerificationSession) -> dict[str, Any]:
        """The JSON of *session*, loaded anew."""
        session = VerificationSession.objects.select_related("plan").get(pk=session.pk)
        return dict(serializers.SessionSerializer(session, context={"request": request}).data)

    def log_access(
        self,
        request: Request,
        action: AccessLog.Action,
        session: VerificationSession,
        reason: Reason | None = None,
    ) -> None:
        """Write to the access log that the caller does *action* with *session*."""
        record_access(actor_of(request, CHANNEL), action, session_id=session.public_id, reason=reason)

    def link(self, request: Request, name: str, *args: Any) -> str:
        """The URL of another view, under whatever path the host includes this API."""
        return reverse(f"{self.namespace(request)}:{name}", args=args, request=request)

    @staticmethod
    def namespace(request: Request) -> str:
        """The namespace under which the host includes these URLs."""
        match = request.resolver_match
        return match.namespace if match is not None else "faceprint-api"


class SessionsView(FaceprintView):
    """Starting sessions, and listing one's own."""

    max_body = PICTURE_BODY

    @operation(
        "sessions_list",
        "Own sessions, newest first",
        answer=serializers.SessionPageSerializer,
        parameters=[serializers.SessionFilterSerializer],
        problems=[400],
    )
    def get(self, request: Request) -> Response:
        """A page of the caller's sessions; of all sessions for holders of ``view_all_sessions``."""
        chosen = self.checked(serializers.SessionFilterSerializer, request.query_params.dict())
        found = (
            VerificationSession.objects.visible_to(request.user)
            .filter(filters.matching(chosen))
            .select_related("plan")
            .defer("verify_token", "ocr", "return_url")
        )
        paginator = filters.NewestFirst()
        page = paginator.paginate_queryset(found, request, view=self)
        return paginator.get_paginated_response(serializers.SessionSummarySerializer(page, many=True).data)

    @operation(
        "sessions_start",
        "Start a session",
        request=serializers.StartSerializer,
        answer=serializers.SessionSerializer,
        status=201,
        problems=[400, 409, 410, 413, 415, 422, 502, 503],
        headers=[
            (
                IDEMPOTENCY_KEY,
                "1 to 80 visible ASCII characters. A repeated call continues the session that it started.",
            )
        ],
    )
    def post(self, request: Request) -> Response:
        """Obtain a token and submit what was given. A call that failed names the session that it left."""
        values = self.checked(serializers.StartSerializer, request.data)
        identity, image = values.get("identity"), values.get("match_image")
        start = StartRequest(
            plan_id=values["plan"],
            reference=values["reference"],
            purpose=values["purpose"],
            identity=_identity(identity, "identity.") if identity is not None else None,
            match_image=_match_image(image, "match_image.") if image is not None else None,
            return_url=values["return_url"],
            consent=Consent(**values["consent"]) if values.get("consent") else None,
            idempotency_key=_idempotency_key(request),
        )
        self.session = session = register_session(start, created_by=request.user)
        prepare_session(session, start)
        address = self.link(request, "session", session.public_id)
        return Response(self.shown(request, session), 201, headers={"Location": address})


class SessionView(FaceprintView):
    """One session."""

    permission_classes = (IsAuthenticated, MayView)

    @operation(
        "sessions_read", "A session", answer=serializers.SessionSerializer, path=["id"], problems=[404, 503]
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002  (named by the URL)
        """The session as it is now. To learn the result, ask again after ``retry_after`` seconds."""
        return Response(self.shown(request, self.find_session(request, id)))


class IdentityView(FaceprintView):
    """Submitting who must appear."""

    permission_classes = (IsAuthenticated, MayAddTo)

    @operation(
        "sessions_identity",
        "Submit name and number",
        request=serializers.IdentitySerializer,
        answer=serializers.SessionSerializer,
        path=["id"],
        problems=[400, 404, 409, 410, 413, 415, 422, 502, 503],
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """For plans that require it, before the person opens the page."""
        session = self.find_session(request, id)
        identity = _identity(self.checked(serializers.IdentitySerializer, request.data), "")
        with _named_here("identity"):
            submit_identity(session, identity)
        return Response(self.shown(request, session))


class MatchImageView(FaceprintView):
    """Uploading the picture to compare with."""

    permission_classes = (IsAuthenticated, MayAddTo)
    parser_classes = (StrictJSONParser, MultiPartParser)
    max_body = PICTURE_BODY

    @operation(
        "sessions_match_image",
        "Upload the match image",
        request={
            "application/json": serializers.MatchImageSerializer,
            "multipart/form-data": serializers.MatchImageForm,
        },
        answer=serializers.SessionSerializer,
        path=["id"],
        problems=[400, 404, 409, 410, 413, 415, 422, 502, 503],
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """For plans that require it, before the person opens the page."""
        session = self.find_session(request, id)
        image = _match_image(self.checked(serializers.MatchImageSerializer, request.data), "")
        with _named_here("match_image"):
            upload_match_image(session, image)
        return Response(self.shown(request, session))


class RefreshView(FaceprintView):
    """Asking Baidu now instead of later."""

    permission_classes = (IsAuthenticated, MayRefresh)

    @operation(
        "sessions_refresh",
        "Have Baidu asked now",
        answer=serializers.SessionSerializer,
        status=202,
        path=["id"],
        problems=[404, 503],
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """A worker asks as soon as it is free; the answer here is the session as it was."""
        session = self.find_session(request, id)
        refuse_erased(session)
        self.log_access(request, AccessLog.Action.REFRESH, session)
        queue.request_recheck(session.pk)
        notify_worker(session)
        return Response(self.shown(request, session), 202)


class ResultView(FaceprintView):
    """All that was learnt."""

    permission_classes = (IsAuthenticated, MayView)

    @operation(
        "sessions_result",
        "A session with all that was learnt",
        answer=serializers.ResultSerializer,
        path=["id"],
        problems=[404, 503],
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        """The session, what was read and confirmed, and each attempt. The look is logged."""
        session = self.find_session(request, id)
        self.log_access(request, AccessLog.Action.VIEW_RECORD, session)
        return Response(serializers.ResultSerializer(session, context={"request": request}).data)


class RevealView(FaceprintView):
    """The identity in clear, for a reason."""

    permission_classes = (IsAuthenticated, MayView, MayReveal)

    @operation(
        "sessions_reveal",
        "A session with its identity in clear",
        request=serializers.RevealSerializer,
        answer=serializers.ResultSerializer,
        path=["id"],
        problems=[400, 403, 404, 413, 415, 503],
    )
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """As ``result/``, unmasked, for holders of ``reveal_identity``. Logged with its reason."""
        session = self.find_session(request, id)
        values = self.checked(serializers.RevealSerializer, request.data)
        reason = checked_reason(values["reason"], values["reason_text"])
        self.log_access(request, AccessLog.Action.REVEAL, session, reason)
        context = {"request": request, "unmasked": True}
        return Response(serializers.ResultSerializer(session, context=context).data)


def _erasing(name: str, summary: str) -> Callable[[Any], Any]:
    """The description of a view that answers with an erasure."""
    return operation(
        name,
        summary,
        request=serializers.ReasonSerializer,
        answer=serializers.ErasureSerializer,
        status=(200, 202),
        path=["id"],
        problems=[400, 403, 404, 413, 415],
    )


class ErasingView(FaceprintView):
    """Base of the views that answer with an erasure."""

    def reason(self, request: Request) -> str:
        """The reason in the request's body, "" without one."""
        return str(self.checked(serializers.ReasonSerializer, request.data)["reason"])

    @staticmethod
    def certificate(done: Erasure) -> Response:
        """The certificate of *done*; 202 while storage still has a file."""
        return Response(erasure.certificate(done), 200 if done.verified_at else 202)


class WithdrawView(ErasingView):
    """The person takes the consent back."""

    permission_classes = (IsAuthenticated, MayView, MayWithdraw)

    @_erasing("sessions_withdraw", "Withdraw the consent")
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """Nothing is fetched any more and what is there is erased. 202 while storage still has a file."""
        session = self.find_session(request, id)
        reason = self.reason(request) or "consent withdrawn"
        return self.certificate(withdraw(session, reason=reason, actor=actor_of(request, CHANNEL)))


class EraseView(ErasingView):
    """Erasing one session before its retention ends."""

    permission_classes = (IsAuthenticated, MayView, MayErase)

    @_erasing("sessions_erase", "Erase identity and evidence")
    def post(self, request: Request, id: str) -> Response:  # noqa: A002
        """For holders of ``erase_person``, with a reason. 202 while storage still has a file."""
        found = VerificationSession.objects.filter(pk=self.find_session(request, id).pk)
        actor = actor_of(request, CHANNEL)
        return self.certificate(erasure.erase(found, reason=self.reason(request), actor=actor))


class StatView(FaceprintView):
    """Statistics of the stages."""

    permission_classes = (IsAuthenticated, MayView)

    @operation(
        "sessions_stat",
        "Calls of Baidu's services by stage",
        answer=serializers.StatSerializer,
        path=["id"],
        problems=[404],
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        """As Baidu told them after the verification."""
        return Response(serializers.StatSerializer(self.find_session(request, id)).data)


class SessionMediaView(FaceprintView):
    """The pictures and videos of a session."""

    permission_classes = (IsAuthenticated, MayView)

    @operation(
        "sessions_media",
        "Pictures and videos of a session",
        answer=serializers.MediaSerializer(many=True),
        path=["id"],
        problems=[404],
    )
    def get(self, request: Request, id: str) -> Response:  # noqa: A002
        """Archived or not, with the reason."""
        session = self.find_session(request, id)
        rows = MediaAsset.objects.filter(session=session).select_related("session")
        rows = rows.order_by("attempt_order", "kind", "position")
        context = {"request": request, "namespace": self.namespace(request)}
        return Response(serializers.MediaSerializer(rows, many=True, context=context).data)


class MediaContentView(FaceprintView):
    """One picture or video."""

    permission_classes = (IsAuthenticated, MayViewMedia)

    @operation(
        "media_content",
        "A picture or video, or a part of it",
        answer=bytes,
        status=(200, 206),
        path=["id"],
        headers=[("Range", "One range of bytes; answered with 206 and the part.")],
        problems=[404, 412, 416, 502, 503],
        media_types=["image/jpeg", "image/png", "image/bmp", "video/mp4"],
    )
    def get(self, request: Request, id: str) -> HttpResponseBase:  # noqa: A002
        """The file in clear. The look is logged before anything is read."""
        asset = self._find(request, id)
        log_media_view(request, asset, actor_of(request, CHANNEL))
        answer = media_response(request._request, asset)
        return answer if answer.status_code < 400 else _media_problem(answer).response(asset.session)

    def _find(self, request: Request, text: str) -> MediaAsset:
        public_id = VerificationSession.parse_public_id(text)
        visible = VerificationSession.objects.visible_to(request.user)
        stored = MediaAsset.objects.stored().select_related("session").filter(session__in=visible)
        asset = stored.filter(public_id=public_id).first() if public_id else None
        if asset is None:
            raise Http404
        self.check_object_permissions(request, asset)
        return asset


class PlansView(FaceprintView):
    """Plans with which sessions can be started."""

    @operation("plans_list", "Active plans", answer=serializers.PlanSerializer(many=True))
    def get(self, request: Request) -> Response:
        """By plan ID."""
        plans = Plan.objects.active().order_by("plan_id")
        return Response(serializers.PlanSerializer(plans, many=True).data)


def _identity(values: dict[str, Any], prefix: str) -> Identity:
    with _named_here("", prefix):
        return Identity.checked(values["name"], values["number"], values["certificate_type"])


def _match_image(values: dict[str, Any], prefix: str) -> MatchImage:
    with _named_here("", prefix):
        return MatchImage.checked(
            values["image"],
            quality_control=values["quality_control"],
            liveness_control=values["liveness_control"],
        )


def _named_here(part: str, prefix: str = "") -> replace_exceptions:
    """Give refused inputs the names that they have in this call.

    With *part* the body is that part of a start, so that ``identity.number`` is ``number`` here.
    """

    def renamed(refused: InvalidInput) -> InvalidInput:
        name = prefix + refused.field
        if part:
            name = "session" if name == part else name.removeprefix(f"{part}.")
        return InvalidInput(name, refused.code, str(refused), refused.params)

    return replace_exceptions(InvalidInput, by=renamed)


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is None:
        return None
    if not _VISIBLE_ASCII.fullmatch(key):
        raise InvalidInput("idempotency_key", "idempotency_key")
    return key


def _media_problem(answer: HttpResponseBase) -> Problem:
    """A refusal of the file itself as problem details."""
    kept = {name: answer[name] for name in ("Content-Range", "Accept-Ranges") if name in answer}
    code, text = _MEDIA_PROBLEMS.get(answer.status_code, _MEDIA_PROBLEMS[502])
    return Problem(answer.status_code, code, str(text), headers=kept)


_MEDIA_PROBLEMS = {
    404: ("not_found", _("There is nothing here for this caller.")),
    412: ("precondition_failed", _("The file is not the one that the condition names.")),
    416: ("range_not_satisfiable", _("The range lies outside the file.")),
    502: ("unreadable", _("The stored file is damaged.")),
    503: ("storage", _("The file storage is not available.")),
}
