"""The control API ``/_sandbox/…``: JSON, for loopback peers only, refused for browsers.

* ``GET health`` → ``{"status": "ok", "now", "offset", "public_url"}``
* ``GET|POST clock``: ``{"offset": s}`` or ``{"advance": s}`` → ``{"now", "offset"}``
* ``POST reset``: forget everything but the clock (``{"clock": true}``: that too) → ``{"status": "ok"}``
* ``GET ledger[?verify_token=…][&hashes=0]`` → ``{"now", "offset", "oauth_tokens": n, "calls": {endpoint:
  {outcome: n}}, "sessions": [{"verify_token", "app", "plan_id", "state", "created_at", "opened_at",
  "finished_at", "closed_at", "gave_up", "page_until", "results_until", "attempts": [{"order", "code",
  "passed", "at"}], "assets": [{"kind", "attempt", "position", "sha256", "size", "content_type",
  "available_from": [endpoint], "available_until", "served", "partly_served"}]}]}``. States: ``issued
  prepared in_progress passed failed failed_open expired purged``. Outcomes: ``ok``, an error code, an HTTP
  status, ``fault:<kind>``. Asset kinds: ``face attempt_face id_front id_back process_video video frame
  match_image``; ``attempt`` is 0 except for ``attempt_face``; a ``match_image`` is never served.
* ``GET|POST|DELETE faults``: POST appends one rule or a list of
  :class:`~django_faceprint.sandbox.faults.Rule`.
* ``GET|POST|DELETE script``: POST appends one or a list of :class:`~django_faceprint.sandbox.options.Script`.
* ``POST finish``: ``{"verify_token", "outcome", "code", "demote", "name", "number"}`` goes through the page
  in one step (sample identity unless given) → ``{"passed", "order", "redirect"}``; 409 when the page would
  refuse.
* ``GET|PUT switches``: any field of :class:`~django_faceprint.sandbox.options.Switches`, among them ``qps``
  (0: off), ``error_envelope``, ``token_gone_code``.
* ``GET plans``, ``PUT plans/{id}``: options of a :class:`~django_faceprint.sandbox.options.Plan` to change,
  or a new plan.
* ``POST revoke``: every access token becomes invalid (110).

Errors: 400 ``{"error": text}``, 403, 404, 405.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Callable
from typing import Any

from .clock import ClockFileError
from .core import Sandbox
from .faults import InvalidRule, Rule
from .message import Request, Response
from .options import Script
from .pages import PageRefused

CONTROL_PATH = "/_sandbox/"


class ControlError(Exception):
    """A refused control request; ``str()`` gives the reason."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class ControlApi:
    """Answers control requests of loopback peers, and hands all others to the sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._routes: dict[str, dict[str, Callable[[Request], Any]]] = {
            "health": {"GET": self._health},
            "clock": {"GET": self._clock, "POST": self._move_clock},
            "reset": {"POST": self._reset},
            "ledger": {"GET": self._ledger},
            "faults": {"GET": self._faults, "POST": self._add_faults, "DELETE": self._clear_faults},
            "script": {"GET": self._scripts, "POST": self._add_scripts, "DELETE": self._clear_scripts},
            "finish": {"POST": self._finish},
            "switches": {"GET": self._switches, "PUT": self._set_switches},
            "plans": {"GET": self._plans},
            "revoke": {"POST": self._revoke},
        }

    def handle(self, request: Request) -> Response:
        """Answer a control request, or any other through :meth:`Sandbox.handle`."""
        if not request.path.startswith(CONTROL_PATH):
            return self._sandbox.handle(request)
        try:
            self._require_local(request)
            name = request.path.removeprefix(CONTROL_PATH).rstrip("/")
            if name.startswith("plans/"):
                methods: dict[str, Callable[[Request], Any]] = {"PUT": self._put_plan}
            else:
                methods = self._routes.get(name, {})
            if not methods:
                raise ControlError("no such address", 404)
            if request.method not in methods:
                raise ControlError("method not allowed", 405)
            return Response.of_json(methods[request.method](request))
        except ControlError as error:
            return Response.of_json({"error": str(error)}, status=error.status)
        except ClockFileError as error:
            return Response.of_json({"error": str(error)}, status=500)

    def _require_local(self, request: Request) -> None:
        if not is_loopback(request.peer):
            raise ControlError("loopback only", 403)
        # Web pages in a browser on this machine also come from loopback; they always send Origin.
        if "origin" in request.headers:
            raise ControlError("not for browsers", 403)

    def _health(self, request: Request) -> Any:
        return {"status": "ok", **self._clock(request), "public_url": self._sandbox.base_url}

    def _clock(self, request: Request) -> Any:
        clock = self._sandbox.clock
        return {"now": clock.now().isoformat(), "offset": clock.offset}

    def _move_clock(self, request: Request) -> Any:
        data = _object(request)
        if set(data) not in ({"offset"}, {"advance"}):
            raise ControlError("give offset or advance, in seconds")
        (name, seconds) = next(iter(data.items()))
        if type(seconds) not in (int, float):
            raise ControlError(f"{name} must be a number of seconds")
        clock = self._sandbox.clock
        try:
            clock.set_offset(seconds) if name == "offset" else clock.advance(seconds)
        except (ValueError, OverflowError, OSError) as error:
            text = str(error)
        else:
            return self._clock(request)
        raise ControlError(text)

    def _reset(self, request: Request) -> Any:
        data = _object(request)
        self._sandbox.reset()
        if data.get("clock") is True:
            self._sandbox.clock.set_offset(0)
        return {"status": "ok"}

    def _ledger(self, request: Request) -> Any:
        query = request.query
        return self._sandbox.ledger(query.get("verify_token"), hashes=query.get("hashes") != "0")

    def _faults(self, request: Request) -> Any:
        return self._sandbox.faults.as_json()

    def _add_faults(self, request: Request) -> Any:
        rules = []
        for at, value in enumerate(_list(request)):
            try:
                rules.append(Rule.of_json(value))
            except InvalidRule as error:
                text = f"rule {at}: {error}"
                raise ControlError(text) from None
        self._sandbox.faults.add(rules)
        return self._sandbox.faults.as_json()

    def _clear_faults(self, request: Request) -> Any:
        self._sandbox.faults.clear()
        return []

    def _scripts(self, request: Request) -> Any:
        return [script.as_json() for script in self._sandbox.store.scripts]

    def _add_scripts(self, request: Request) -> Any:
        try:
            scripts = [Script.of_json(value) for value in _list(request)]
            for script in scripts:
                self._sandbox.store.add_script(script)
        except ValueError as error:
            raise ControlError(str(error)) from None
        return self._scripts(request)

    def _clear_scripts(self, request: Request) -> Any:
        self._sandbox.store.scripts.clear()
        return []

    def _finish(self, request: Request) -> Any:
        data = _object(request)
        known = {"verify_token": str, "outcome": str, "code": str, "demote": bool, "name": str, "number": str}
        if not set(data) <= set(known) or not all(type(value) is known[name] for name, value in data.items()):
            raise ControlError("fields are " + ", ".join(known))
        if "verify_token" not in data:
            raise ControlError("verify_token is missing")
        try:
            done = self._sandbox.finish(data.pop("verify_token"), **data)
        except ValueError as error:
            raise ControlError(str(error)) from None
        except PageRefused as refused:
            raise ControlError(refused.outcome, 409) from None
        return {
            "redirect": done.redirect,
            "passed": done.attempt.passed if done.attempt else None,
            "order": done.attempt.order if done.attempt else None,
        }

    def _switches(self, request: Request) -> Any:
        return dataclasses.asdict(self._sandbox.store.switches)

    def _set_switches(self, request: Request) -> Any:
        try:
            self._sandbox.set_switches(**_object(request))
        except ValueError as error:
            raise ControlError(str(error)) from None
        return self._switches(request)

    def _plans(self, request: Request) -> Any:
        return [dataclasses.asdict(plan) for plan in self._sandbox.store.plans.values()]

    def _put_plan(self, request: Request) -> Any:
        plan_id = request.path.removeprefix(CONTROL_PATH + "plans/").rstrip("/")
        if not plan_id.isascii() or not plan_id.isalnum() or len(plan_id) > 40:
            raise ControlError("a plan id consists of up to 40 letters and digits")
        data = _object(request)
        data.pop("plan_id", None)
        try:
            return dataclasses.asdict(self._sandbox.change_plan(plan_id, **data))
        except ValueError as error:
            raise ControlError(str(error)) from None

    def _revoke(self, request: Request) -> Any:
        self._sandbox.store.revoke_access_tokens()
        return {"status": "ok"}


def is_loopback(host: str) -> bool:
    """Whether the host is ``localhost`` or a loopback address."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def _body(request: Request) -> Any:
    if not request.body:
        return {}
    try:
        return json.loads(request.body)
    except (ValueError, RecursionError):
        pass
    raise ControlError("the body is not JSON")


def _object(request: Request) -> dict[str, Any]:
    value = _body(request)
    if not isinstance(value, dict):
        raise ControlError("the body must be an object")
    return value


def _list(request: Request) -> list[Any]:
    value = _body(request)
    return value if isinstance(value, list) else [value]
