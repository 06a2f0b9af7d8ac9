"""The sandbox without a socket: one function from request to answer, :meth:`Sandbox.handle`.

Its answers follow the API reference (sections 1-8); where that is silent, section 8.3 and
:class:`~django_faceprint.sandbox.options.Switches`.

Keys: ``sandbox-api-key`` / ``sandbox-secret-key``; a second application of the same account
``sandbox-other-api-key`` / ``sandbox-other-secret-key``; one of another account ``sandbox-foreign-api-key``
/ ``sandbox-foreign-secret-key``. Plans ``25001`` … ``25007``, see ``options.PLANS``; ``15001`` is a 项目ID.

The addresses are listed where they are answered: access token and interfaces in
:mod:`~django_faceprint.sandbox.api`, the H5 page in :mod:`~django_faceprint.sandbox.h5`, pictures and videos
in :mod:`~django_faceprint.sandbox.object_storage`, the control API in
:mod:`~django_faceprint.sandbox.control`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from . import faults, pages
from .api import OAUTH_PATH, RPC, RPC_ENDPOINTS, Api, json_object
from .clock import ClockFileError, SandboxClock
from .errors import GatewayError
from .faults import FaultRules, RequestFacts, Rule
from .h5 import PAGE_PATHS, STEP_PATH, Finished, H5Page
from .media import DEFAULT_IMAGE_SIZE, DEFAULT_VIDEO_SIZE, SAMPLE_NAME, SAMPLE_NUMBER, MediaGenerator
from .message import Request, Response
from .object_storage import MEDIA_NAME, MEDIA_PATH, SIMPLE_IMAGE_PATH, ObjectStorage
from .options import Plan, Script, Switches
from .results import Results
from .sessions import Identity
from .store import Store


class Sandbox:
    """A local Baidu.

    ``public_url`` is the base of the URLs in answers (a server fills it in when it is ``None``); ``clock``
    moves every validity period; ``qps`` is the limit per account and interface (0: none); sizes are bytes;
    ``monotonic`` measures the QPS windows. Scores and probable faults are the same in every run.
    """

    def __init__(
        self,
        *,
        public_url: str | None = None,
        clock: SandboxClock | None = None,
        qps: float | None = None,
        image_size: int = DEFAULT_IMAGE_SIZE,
        video_size: int = DEFAULT_VIDEO_SIZE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.clock = clock or SandboxClock()
        self.store = Store(
            MediaGenerator(image_size=image_size, video_size=video_size),
            self.clock,
            public_url=public_url,
            switches=Switches() if qps is None else Switches().changed({"qps": float(qps)}),
            monotonic=monotonic,
        )
        self.faults = FaultRules()
        self._storage = ObjectStorage(self.store)
        self._api = Api(self.store, Results(self.store, self._storage))
        self._page = H5Page(self.store)

    @property
    def base_url(self) -> str:
        """The base of the URLs in answers."""
        return self.store.base_url

    def reset(self) -> None:
        """Forget sessions, tokens, faults, scripts, switches and changes of plans. The clock stays."""
        self.faults.clear()
        self.store.clear()

    def add_faults(self, *rules: Mapping[str, Any]) -> None:
        """Like ``POST /_sandbox/faults``. Raises :class:`~django_faceprint.sandbox.faults.InvalidRule`."""
        self.faults.add([Rule.of_json(dict(rule)) for rule in rules])

    def add_script(self, **fields: Any) -> None:
        """Like ``POST /_sandbox/script``. Raises ``ValueError``."""
        self.store.add_script(Script.of_json(fields))

    def set_switches(self, **fields: Any) -> None:
        """Like ``PUT /_sandbox/switches``. Raises ``ValueError``."""
        with self.store.lock:
            self.store.switches = self.store.switches.changed(fields)

    def change_plan(self, plan_id: str, /, **options: Any) -> Plan:
        """Like ``PUT /_sandbox/plans/{id}``; sessions keep the plan of their start.

        Raises ``ValueError``.
        """
        with self.store.lock:
            plan = (self.store.plans.get(plan_id) or Plan(plan_id, plan_id)).changed(options)
            self.store.plans[plan_id] = plan
            return plan

    def ledger(self, verify_token: str | None = None, *, hashes: bool = True) -> dict[str, Any]:
        """Like ``GET /_sandbox/ledger``. Without ``hashes``, those not computed yet are ``None``."""
        return {
            "offset": self.clock.offset,
            **self.store.ledger(verify_token=verify_token, hashes=hashes),
        }

    def finish(
        self,
        verify_token: str,
        outcome: str = "pass",
        code: str | None = None,
        *,
        demote: bool = False,
        name: str = SAMPLE_NAME,
        number: str = SAMPLE_NUMBER,
    ) -> Finished:
        """Like ``POST /_sandbox/finish``: go through the H5 page in one step.

        ``outcome``: ``pass``, ``fail`` (with ``code``) or ``giveup``. Raises ``ValueError`` for another one,
        and :class:`~django_faceprint.sandbox.pages.PageRefused` when the page would refuse.
        """
        return self._page.finish(verify_token, outcome, code, demote=demote, identity=Identity(name, number))

    def handle(self, request: Request) -> Response:
        """Answer a request. Never raises for anything that came over the wire."""
        endpoint = _endpoint(request.path)
        rule = None
        if not self.faults.empty and (facts := self.facts(request)):
            rule = self.faults.next_for(facts)
        try:
            response = self._faulty(endpoint, request, rule) if rule else self._regular(endpoint, request)
        except ClockFileError:
            response = Response.of_bytes(b"clock file damaged", "text/plain", status=500, outcome="500")
        if endpoint:
            self.store.count_call(endpoint, response.outcome)
        if request.method == "HEAD":
            response.body = b""
            response.on_completed.clear()
        return response

    def facts(self, request: Request) -> RequestFacts | None:
        """The endpoint, verify_token, application and plan of a request; ``None``: no endpoint of Baidu's."""
        endpoint, query = _endpoint(request.path), request.query
        if endpoint is None:
            return None
        data: dict[str, Any] = {}
        token: object = None
        if endpoint in RPC_ENDPOINTS.values():
            data = json_object(request.body) or {}
            token = data.get("verify_token")
        elif endpoint == "simple_image":
            token = query.get("verify_token")
        elif endpoint == "h5":
            token = query.get("token") or request.form.get("token")
        elif endpoint == "media" and (match := MEDIA_NAME.fullmatch(request.path[len(MEDIA_PATH) :])):
            token = match["token"]
        if not isinstance(token, str):
            token = None
        if token and (session := self.store.sessions.get(token)):
            return RequestFacts(endpoint, token, session.app.api_key, session.plan.plan_id)
        access = self.store.access_token(query.get("access_token", ""))
        app = access[0].api_key if access else query.get("client_id")
        plan_id = str(data.get("plan_id")) if data and endpoint == "verify_token_generate" else None
        return RequestFacts(endpoint, token, app, plan_id)

    def _regular(self, endpoint: str | None, request: Request, *, shift_range: bool = False) -> Response:
        """The answer without a fault."""
        match endpoint:
            case None:
                return _no_endpoint(request.path)
            case "oauth_token":
                return self._api.issue_access_token(request)
            case "h5":
                return self._page.handle(request)
            case "simple_image":
                return self._storage.serve_simple_image(request, shift_range=shift_range)
            case "media":
                return self._storage.serve_media(request, shift_range=shift_range)
            case _:
                return self._api.call(endpoint, request)

    def _faulty(self, endpoint: str | None, request: Request, rule: Rule) -> Response:
        if rule.replaces_answer:
            if rule.after:
                self._regular(endpoint, request)
            return faults.replacement(rule, self.store.log_id())
        if rule.kind == "ignore_range":
            request = faults.without_range(request)
        response = self._regular(endpoint, request, shift_range=rule.kind == "wrong_range")
        return faults.altered(rule, response, self.base_url)


def _endpoint(path: str) -> str | None:
    """The name of the interface at a path, as fault rules and the ledger use it."""
    if path == OAUTH_PATH:
        return "oauth_token"
    if path.startswith(RPC):
        return RPC_ENDPOINTS.get(path[len(RPC) :])
    if path in PAGE_PATHS or path.startswith(STEP_PATH):
        return "h5"
    if path == SIMPLE_IMAGE_PATH:
        return "simple_image"
    return "media" if path.startswith(MEDIA_PATH) else None


def _no_endpoint(path: str) -> Response:
    if path == "/favicon.ico":
        return Response(status=204)
    if path.startswith("/rpc/"):
        return GatewayError(3).answer()
    return pages.html_response(pages.problem("404", "沙箱没有这个地址。"), status=404, outcome="404")
