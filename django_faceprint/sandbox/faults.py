"""Faults on demand: rules, which requests they match, and what they do to the answer.

A rule as JSON: ``{"endpoint": …, "kind": …}`` with any of ``count``, ``probability`` (0–1), ``skip`` (let n
matching requests pass first) and ``match`` (``{"verify_token", "app", "plan_id"}``); without ``count`` and
``probability`` it always applies. The first matching rule applies alone.

Endpoints: ``oauth_token verify_token_generate idcard_submit upload_match_image result_simple result_detail
result_stat result_media_query result_getall simple_image media h5``, or ``*`` for all.

Kinds that replace the answer; the request is carried out only with ``after: true``, and then before it:

* ``http`` (``status``), also as ``http_500`` …; ``html``, ``malformed_json``, ``nan_json``, ``deep_json``,
  ``empty``: answers that are no JSON object of Baidu's
* ``gateway`` (``code``, ``message``, ``log_id``: true) and ``service`` (``code``, ``message``): its errors
* ``hang`` (``seconds``, then closed without an answer), ``reset`` (at once)
* ``expired_url``, ``redirect`` (``url``), ``huge`` (``size``): for pictures and videos

Kinds that carry the request out and alter the answer:

* ``patch_result`` (``fields``): these fields replace their namesakes in the ``result`` of a JSON answer
* ``delay`` (``seconds``), ``drip`` (``seconds`` per ``chunk`` bytes), ``truncate`` (full Content-Length, then
  ``after_bytes`` or half of the body), ``reset`` with ``after_bytes``
* ``wrong_content_type`` (``content_type``); ``foreign_url`` and ``internal_url`` (``url`` replaces scheme and
  host of every URL in the answer)
* ``not_image``, ``truncated_image``, ``wrong_range``, ``ignore_range``: for pictures and videos
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .api import RPC_ENDPOINTS
from .errors import GATEWAY_MESSAGES, SERVICE_MESSAGES
from .message import Request, Response, TransportFault
from .object_storage import storage_error

ENDPOINTS = ("oauth_token", *RPC_ENDPOINTS.values(), "simple_image", "media", "h5")

REPLACING = (
    "http",
    "html",
    "malformed_json",
    "nan_json",
    "deep_json",
    "empty",
    "gateway",
    "service",
    "hang",
    "reset",
    "expired_url",
    "huge",
    "redirect",
)
ALTERING = (
    "patch_result",
    "delay",
    "drip",
    "truncate",
    "wrong_content_type",
    "foreign_url",
    "internal_url",
    "not_image",
    "truncated_image",
    "wrong_range",
    "ignore_range",
)
KINDS = REPLACING + ALTERING
ALIASES = {f"http_{status}": ("http", status) for status in (400, 401, 403, 404, 429, 500, 502, 503, 504)}
BROKEN_BODIES = {
    "malformed_json": b'{"success": true, "result": {"verify_token": ',
    "nan_json": b'{"success": true, "result": {"verify_result": {"score": NaN}}, "log_id": "1"}',
    "deep_json": b'{"result":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "empty": b"",
}


class InvalidRule(ValueError):
    """A rule of the control API that cannot be understood; the text says why."""


@dataclass
class Rule:
    """One fault; the module's docstring lists fields and kinds. ``hits`` counts how often it applied."""

    endpoint: str
    kind: str
    count: int | None = None
    probability: float | None = None
    skip: int = 0
    match: Mapping[str, str] = field(default_factory=dict)
    status: int = 500
    code: int = 2
    message: str | None = None
    log_id: bool = False
    seconds: float = 1.0
    chunk: int = 1
    after_bytes: int | None = None
    size: int = 64 * 1024 * 1024
    url: str | None = None
    content_type: str = "text/html"
    fields: Mapping[str, Any] = field(default_factory=dict)
    after: bool = False
    hits: int = 0

    @classmethod
    def of_json(cls, value: object) -> Rule:
        """Read a rule of the control API. Raises :class:`InvalidRule`."""
        if not isinstance(value, dict):
            raise InvalidRule("a rule is an object")
        known = {item.name for item in dataclasses.fields(cls)} - {"hits"}
        if unknown := set(value) - known:
            raise InvalidRule(f"unknown fields: {', '.join(sorted(map(str, unknown)))}")
        values: dict[str, Any] = dict(value)
        kind = values.get("kind")
        if isinstance(kind, str) and kind in ALIASES:
            values["kind"], values["status"] = ALIASES[kind]
        rule = cls(**{"endpoint": "", "kind": "", **values})
        rule.check()
        return rule

    def check(self) -> None:
        """Raise :class:`InvalidRule` unless every field makes sense."""
        if self.endpoint not in (*ENDPOINTS, "*"):
            raise InvalidRule(f"endpoint must be one of {', '.join(ENDPOINTS)} or *")
        if self.kind not in KINDS:
            raise InvalidRule(f"kind must be one of {', '.join((*KINDS, *ALIASES))}")
        if not isinstance(self.match, dict) or not set(self.match) <= {"verify_token", "app", "plan_id"}:
            raise InvalidRule("match may name verify_token, app, plan_id")
        if not all(isinstance(text, str) for text in self.match.values()):
            raise InvalidRule("match holds strings")
        if not isinstance(self.fields, dict):
            raise InvalidRule("fields must be an object")
        whole = {
            "count": self.count,
            "skip": self.skip,
            "status": self.status,
            "chunk": self.chunk,
            "size": self.size,
        }
        for name, number in (*whole.items(), ("after_bytes", self.after_bytes)):
            if number is not None and (type(number) is not int or number < 0):
                raise InvalidRule(f"{name} must be a whole number, not negative")
        if self.status < 200 or self.status > 599 or self.chunk < 1 or self.size > 1024**3:
            raise InvalidRule("status, chunk or size out of range")
        if type(self.code) is not int:
            raise InvalidRule("code must be a whole number")
        for name, share in (("probability", self.probability), ("seconds", self.seconds)):
            if share is not None and (type(share) not in (int, float) or not 0 <= share <= 3600):
                raise InvalidRule(f"{name} must be a number, not negative")
        if self.probability is not None and self.probability > 1:
            raise InvalidRule("probability is at most 1")
        for name, text in (("message", self.message), ("url", self.url), ("content_type", self.content_type)):
            if text is not None and (not isinstance(text, str) or any(ord(c) < 32 for c in text)):
                raise InvalidRule(f"{name} must be text")

    @property
    def replaces_answer(self) -> bool:
        """Whether the fault needs no regular answer."""
        return self.kind in REPLACING and (self.kind != "reset" or self.after_bytes is None)

    def as_json(self) -> dict[str, Any]:
        """The rule with its number of hits, for the control API."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class RequestFacts:
    """The facts about a request that a rule can match; ``None``: not known."""

    endpoint: str
    verify_token: str | None = None
    app: str | None = None
    plan_id: str | None = None


class FaultRules:
    """The rules in force. The first that matches a request applies."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._random = random.Random(0)  # noqa: S311 -- repeatable chaos, not a secret
        self._lock = Lock()

    def add(self, rules: list[Rule]) -> None:
        """Append rules."""
        with self._lock:
            self._rules.extend(rules)

    def clear(self) -> None:
        """Drop every rule."""
        with self._lock:
            self._rules.clear()

    def as_json(self) -> list[dict[str, Any]]:
        """All rules, also those used up."""
        with self._lock:
            return [rule.as_json() for rule in self._rules]

    @property
    def empty(self) -> bool:
        """Whether no rule was ever added."""
        return not self._rules

    def next_for(self, facts: RequestFacts) -> Rule | None:
        """The rule that applies to this request, counted as a hit; ``None`` for a regular answer."""
        with self._lock:
            for rule in self._rules:
                if rule.endpoint not in (facts.endpoint, "*"):
                    continue
                if any(getattr(facts, name) != text for name, text in rule.match.items()):
                    continue
                if rule.count is not None and rule.hits >= rule.count:
                    continue
                if rule.probability is not None and self._random.random() >= rule.probability:
                    continue
                if rule.skip:
                    rule.skip -= 1
                    continue
                rule.hits += 1
                return rule
        return None


def replacement(rule: Rule, log_id: str) -> Response:
    """The answer of a fault that needs no regular one."""
    match rule.kind:
        case "http":
            title = f"<title>{rule.status}</title>"
            page = f"<html><head>{title}</head><body><h1>{rule.status}</h1></body></html>"
            response = Response.of_html(page, status=rule.status)
        case "html":
            response = Response.of_html("<!DOCTYPE html><html><body><h1>系统维护中</h1></body></html>")
        case "gateway":
            message = rule.message or GATEWAY_MESSAGES.get(rule.code, "Unknown error")
            extra = {"log_id": log_id} if rule.log_id else {}
            response = Response.of_json({"error_code": rule.code, "error_msg": message, **extra})
        case "service":
            message = rule.message or SERVICE_MESSAGES.get(rule.code, "unknown error")
            payload = {"success": False, "result": None, "code": rule.code, "message": message}
            response = Response.of_json(payload | {"log_id": log_id})
        case "expired_url":
            response = storage_error(403, "RequestExpired", "Request has expired.", log_id)
        case "huge":
            headers = [("Content-Type", "image/jpeg")]
            response = Response(headers=headers, body=_zeros(rule.size), length=rule.size)
        case "redirect":
            response = Response(status=302, headers=[("Location", rule.url or "http://169.254.169.254/")])
        case "hang":
            response = Response(fault=TransportFault("hang", seconds=rule.seconds))
        case "reset":
            response = Response(fault=TransportFault("reset", after_bytes=rule.after_bytes))
        case _:
            response = Response.of_bytes(BROKEN_BODIES[rule.kind], "application/json")
    response.outcome = f"fault:{rule.kind}"
    return response


def altered(rule: Rule, response: Response, public_url: str) -> Response:
    """The regular answer with its fault."""
    content_type = response.header("Content-Type") or "image/jpeg"
    match rule.kind:
        case "delay" | "drip" | "truncate" | "reset":
            response.fault = TransportFault(
                rule.kind, seconds=rule.seconds, chunk=rule.chunk, after_bytes=rule.after_bytes
            )
        case "patch_result":
            response = _patched(response, rule.fields)
        case "wrong_content_type":
            response.replace_header("Content-Type", rule.content_type)
        case "foreign_url" | "internal_url":
            default = "https://media.example.net" if rule.kind == "foreign_url" else "http://169.254.169.254"
            payload = _moved(response.payload, public_url, rule.url or default)
            response = Response.of_json(payload, status=response.status)
        case "not_image":
            body = b"<!DOCTYPE html><html><body>not a picture</body></html>"
            response = Response.of_bytes(body, content_type)
        case "truncated_image":
            body = b"".join(response.chunks())
            response = Response.of_bytes(body[: len(body) // 2], content_type, status=response.status)
        case _:
            # wrong_range and ignore_range act where the range is read.
            pass
    response.outcome = f"fault:{rule.kind}"
    return response


def without_range(request: Request) -> Request:
    """The same request as if it had asked for the whole."""
    headers = {name: text for name, text in request.headers.items() if name != "range"}
    return dataclasses.replace(request, headers=headers)


def _patched(response: Response, fields: Mapping[str, Any]) -> Response:
    payload = response.payload
    if not isinstance(payload, dict) or not isinstance(payload.get("result"), dict):
        return response
    patched = Response.of_json(payload | {"result": payload["result"] | fields}, status=response.status)
    patched.on_completed = response.on_completed
    return patched


def _moved(value: Any, public_url: str, elsewhere: str) -> Any:
    if isinstance(value, str):
        return elsewhere.rstrip("/") + value[len(public_url) :] if value.startswith(public_url) else value
    if isinstance(value, list):
        return [_moved(item, public_url, elsewhere) for item in value]
    if isinstance(value, dict):
        return {name: _moved(item, public_url, elsewhere) for name, item in value.items()}
    return value


def _zeros(size: int) -> Iterator[bytes]:
    block = bytes(64 * 1024)
    while size > 0:
        yield block[: min(size, len(block))]
        size -= len(block)
