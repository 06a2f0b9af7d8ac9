"""The H5 page, step by step (API reference 5). :mod:`django_faceprint.sandbox.pages` has its HTML.

Forms are ``application/x-www-form-urlencoded``; every one carries ``token`` and, where present,
``successUrl`` and ``failedUrl``. A script may leave out the consent form.

1. ``GET /face/print/?token=T[&successUrl=…&failedUrl=…]`` opens the page (200, also with the text
   「Token无效或者已过期」).
2. ``POST /face/print/consent``: ``token``, ``agree=1`` → 303 to the page. Optional.
3. ``POST /face/print/identity`` (plans with typed or OCR identity only): ``token``, ``name``, ``number``,
   ``certificate_type`` (0–4, optional) → 303 to the page; 400 with the form when something is missing.
4. ``POST /face/print/finish``: ``token``, ``outcome`` = ``pass`` | ``fail`` | ``giveup``, for ``fail`` also
   ``code`` (a number of API reference 4.3, or ``low_score``; default ``223120``), ``demote=1`` when the
   browser cannot do real-time liveness → 302 to the success or failed URL when there is one, else 200 with
   a result page (``giveup`` never redirects). 400 when the identity is missing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote

from . import pages
from .attempts import LIVENESS_CODE, make_attempt
from .media import card_background
from .message import Request, Response
from .pages import PageRefused
from .sessions import Attempt, Identity, Session
from .store import Store

PAGE_PATHS = ("/face/print", "/face/print/")
STEP_PATH = "/face/print/"
OUTCOMES = ("pass", "fail", "giveup")
FORM_TEXT = re.compile(r"[^\x00-\x1f\x7f]{1,60}")
CODE = re.compile(r"[1-9]\d{0,9}")
NO_URLS = ("", "")


@dataclass(frozen=True)
class Finished:
    """The end of a visit to the page: an attempt, or none for a user who gave up, and where to go."""

    attempt: Attempt | None
    redirect: str | None


class H5Page:
    """Answers a browser, and lets a script finish in one call."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def handle(self, request: Request) -> Response:
        """Answer a request below ``/face/print``."""
        path = request.path
        try:
            if path == STEP_PATH + "card.png":
                return self._card(request)
            if path in PAGE_PATHS and request.method in ("GET", "HEAD"):
                return self._show(request)
            if request.method == "POST" and path.startswith(STEP_PATH):
                return self._step(path.removeprefix(STEP_PATH), request.form)
            raise _no_page(405 if path in PAGE_PATHS else 404)
        except PageRefused as refused:
            return pages.html_response(refused.html, status=refused.status, outcome=refused.outcome)

    def finish(
        self,
        verify_token: str,
        outcome: str,
        code: str | None = None,
        *,
        demote: bool = False,
        identity: Identity,
    ) -> Finished:
        """Go through the page in one step, with *identity* where the user would type one.

        Raises ``ValueError`` for an unknown *outcome* and :class:`PageRefused` where the page would refuse.
        """
        if outcome not in OUTCOMES:
            raise ValueError("outcome must be pass, fail or giveup")
        with self._store.lock:
            session, page = self._open(verify_token, NO_URLS)
            if session.plan.types_identity:
                session.identity = identity
            return self._finish(session, page, outcome, code, demote, NO_URLS)

    def _open(self, token: str, urls: tuple[str, str]) -> tuple[Session, pages.Page]:
        """The session with its page, marked as opened. The caller holds the lock."""
        session = self._store.sessions.get(token)
        now = self._store.clock.now()
        if session is None or not session.usable_on_page(now):
            raise PageRefused(pages.gone(), "gone")
        page = pages.Page(session, urls)
        if not session.prepared:
            raise PageRefused(page.unprepared(), "unprepared")
        if session.opened_at is None:
            session.opened_at = now
        return session, page

    def _card(self, request: Request) -> Response:
        side = "back" if request.query.get("side") == "back" else "front"
        headers = {"Cache-Control": "max-age=3600"}
        return Response.of_bytes(card_background(side), "image/png", headers=headers)

    def _show(self, request: Request) -> Response:
        query = request.query
        with self._store.lock:
            session, page = self._open(query.get("token", ""), _urls(query))
            if not session.consented:
                return pages.html_response(page.consent())
            if session.plan.types_identity and session.identity is None:
                return pages.html_response(page.identity())
            return pages.html_response(page.liveness())

    def _step(self, step: str, form: dict[str, str]) -> Response:
        with self._store.lock:
            session, page = self._open(form.get("token", ""), _urls(form))
            match step:
                case "consent":
                    session.consented = session.consented or form.get("agree") == "1"
                case "identity":
                    session.identity = _typed_identity(session, page, form)
                    session.consented = True
                case "finish":
                    return self._finish_form(session, page, form)
                case _:
                    raise _no_page(404)
            return Response(status=303, headers=[("Location", page.link)])

    def _finish_form(self, session: Session, page: pages.Page, form: dict[str, str]) -> Response:
        outcome = form.get("outcome", "")
        if outcome not in OUTCOMES:
            raise PageRefused(page.liveness(error="请选择结果。"), "400", status=400)
        code = form.get("code") or None
        done = self._finish(session, page, outcome, code, form.get("demote") == "1", _urls(form))
        attempt = done.attempt
        if attempt is None:
            return pages.html_response(page.left(), outcome="giveup")
        label = "pass" if attempt.passed else "fail"
        if done.redirect:
            return Response(status=302, headers=[("Location", done.redirect)], outcome=label)
        may_retry = session.usable_on_page(self._store.clock.now())
        reason = f"{attempt.message}（{attempt.code}）"
        return pages.html_response(page.result(attempt.passed, reason, may_retry=may_retry), outcome=label)

    def _finish(
        self,
        session: Session,
        page: pages.Page,
        outcome: str,
        code: str | None,
        demote: bool,
        urls: tuple[str, str],
    ) -> Finished:
        script = session.script
        if script and script.outcome:
            outcome = script.outcome
        if outcome == "giveup":
            session.gave_up = True
            return Finished(None, None)
        if session.plan.identity_entry != "none" and session.identity is None:
            raise PageRefused(page.identity(error="请先填写身份信息。"), "400", status=400)
        code = (script.code if script and script.code else code) or str(LIVENESS_CODE)
        if code == "low_score":
            code = str(self._store.switches.low_score_code)
        if not CODE.fullmatch(code):
            raise PageRefused(page.liveness(error="原因代码无效。"), "400", status=400)
        session.consented = True
        attempt = make_attempt(self._store, session, passed=outcome == "pass", code=int(code), demote=demote)
        session.attempts.append(attempt)
        if attempt.passed or session.plan.closes_on_failure:
            session.closed_at = attempt.at
        elif session.plan.types_identity:
            # A mistyped name can be corrected in the next attempt.
            session.identity = None
        return Finished(attempt, self._redirect(session, attempt.passed, urls))

    def _redirect(self, session: Session, passed: bool, urls: tuple[str, str]) -> str | None:
        """The URL to return to, of the token or of the page's address; ``None`` without a usable one."""
        switches = self._store.switches
        configured = session.success_url if passed else session.failed_url
        candidates = [configured or "", urls[0] if passed else urls[1]]
        if switches.redirect_precedence == "query":
            candidates.reverse()
        target = pages.safe_redirect(candidates[0] or candidates[1])
        if not target or not switches.redirect_extra:
            return target
        front, mark, fragment = target.partition("#")
        joint = "&" if "?" in front else "?"
        return f"{front}{joint}{quote(switches.redirect_extra, safe='=&')}{mark}{fragment}"


def _typed_identity(session: Session, page: pages.Page, form: dict[str, str]) -> Identity:
    if not session.plan.types_identity:
        raise PageRefused(pages.problem("无需填写", "该方案不需要填写身份信息。"), "400", status=400)
    name, number = form.get("name", "").strip(), form.get("number", "").strip()
    kind = form.get("certificate_type", "0")
    error = ""
    if not FORM_TEXT.fullmatch(name):
        error = "请填写姓名。"
    elif not FORM_TEXT.fullmatch(number):
        error = "请填写证件号码。"
    elif kind not in ("0", "1", "2", "3", "4") or (kind != "0" and not session.plan.non_mainland):
        error = "该方案不支持这种证件。"
    if error:
        raise PageRefused(page.identity(error=error, values=form), "400", status=400)
    return Identity(name, number, int(kind))


def _urls(fields: dict[str, str]) -> tuple[str, str]:
    return fields.get("successUrl", ""), fields.get("failedUrl", "")


def _no_page(status: int) -> PageRefused:
    return PageRefused(pages.problem(str(status), "沙箱没有这个地址。"), str(status), status=status)
