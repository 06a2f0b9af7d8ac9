"""Faults that the sandbox commits on demand: rules, their matching, and what they do to an answer."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .message import Request, Response, TransportFault

API_ENDPOINTS = (
    "verify_token_generate",
    "idcard_submit",
    "upload_match_image",
    "result_simple",
    "result_detail",
    "result_stat",
    "result_media_query",
    "result_getall",
)
ENDPOINTS = ("oauth_token", *API_ENDPOINTS, "simple_image", "media", "h5")

# Answer something else; the request is not carried out unless the rule says "after".
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
# Carry the request out and spoil the answer or its transport.
SPOILING = (
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
KINDS = REPLACING + SPOILING
ALIASES = {f"http_{status}": ("http", status) for status in (400, 401, 403, 404, 429, 500, 502, 503, 504)}

GATEWAY_MESSAGES = {
    2: "Service temporarily unavailable",
    3: "Unsupported openapi method",
    4: "Open api request limit reached",
    6: "no permission to access data",
    17: "Open api daily request limit reached",
    18: "Open api qps request limit reached",
    19: "Open api total request limit reached",
    100: "Invalid parameter",
    110: "Access token invalid or no longer valid",
    111: "Access token expired",
}
SERVICE_MESSAGES = {
    283400: "服务异常,请稍后再试",
    283435: "方案不存在。Plan not exist.",
    283450: "认证尚未开始",
    283512: "服务异常,请稍后再试",
    283513: "请求参数错误",
    283520: "请传入核验方式",
    216100: "invalid param",
    222001: "param[] is null",
    222013: "param[image] format error",
    222019: "param[quality_control] format error",
    222020: "param[liveness_control] format error",
    222022: "param[id_card_number] format error",
    222202: "pic not has face",
    222203: "image check fail",
    222304: "image size is too large",
    222350: "police picture is none or low quality",
    222351: "身份证姓名不匹配",
    222354: "身份证号不在库中",
    222355: "库中无此人照片",
    222356: "采集图片质量不合格",
    222360: "姓名或身份证号不合法",
    222361: "police service timeout",
    223114: "人脸模糊",
    223120: "活体检测未通过",
    223122: "右眼被遮挡",
    223123: "左脸被遮挡",
    223124: "右脸被遮挡",
    223125: "下巴被遮挡",
    223126: "鼻子被遮挡",
    223127: "嘴巴被遮挡",
    223131: "合成图检测未通过",
    216500: "unknown error",
    216510: "动作活体视频超过10秒",
}


class InvalidRule(ValueError):
    """A rule of the control API that cannot be understood; the text says why."""


@dataclass
class Rule:
    """One fault. See :mod:`django_faceprint.sandbox.core` for the fields and kinds."""

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
    after: bool = False
    hits: int = 0

    @classmethod
    def of_json(cls, value: object) -> Rule:
        """Read a rule of the control API. Raises :class:`InvalidRule`."""
        if not isinstance(value, dict):
            raise InvalidRule("a rule is an object")
        fields = {f.name: f for f in dataclasses.fields(cls) if f.name != "hits"}
        if unknown := set(value) - set(fields):
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

    def as_json(self) -> dict[str, Any]:
        """The rule with its number of hits, for the control API."""
        return dataclasses.asdict(self)


class FaultBook:
    """The rules in force. The first that matches a request is committed."""

    def __init__(self, seed: int = 0) -> None:
        self._rules: list[Rule] = []
        self._random = random.Random(seed)  # noqa: S311 -- repeatable chaos, not a secret
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

    def draw(self, endpoint: str, facts: Mapping[str, str | None]) -> Rule | None:
        """The fault for this request, counted as committed; ``None`` for an honest answer."""
        with self._lock:
            for rule in self._rules:
                if rule.endpoint not in (endpoint, "*"):
                    continue
                if any(facts.get(name) != text for name, text in rule.match.items()):
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
    """The answer of a fault that does not depend on the honest one."""
    outcome = f"fault:{rule.kind}"
    match rule.kind:
        case "http":
            page = (
                f"<html><head><title>{rule.status}</title></head><body><h1>{rule.status}</h1></body></html>"
            )
            response = Response.of_html(page, status=rule.status)
        case "html":
            response = Response.of_html("<!DOCTYPE html><html><body><h1>系统维护中</h1></body></html>")
        case "malformed_json":
            response = Response.of_bytes(b'{"success": true, "result": {"verify_token": ', "application/json")
        case "nan_json":
            body = b'{"success": true, "result": {"verify_result": {"score": NaN}}, "log_id": "1"}'
            response = Response.of_bytes(body, "application/json")
        case "deep_json":
            response = Response.of_bytes(
                b'{"result":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "application/json"
            )
        case "empty":
            response = Response.of_bytes(b"", "application/json")
        case "gateway":
            payload: dict[str, Any] = {
                "error_code": rule.code,
                "error_msg": rule.message or GATEWAY_MESSAGES.get(rule.code, "Unknown error"),
            }
            response = Response.of_json(payload | ({"log_id": log_id} if rule.log_id else {}))
        case "service":
            message = rule.message or SERVICE_MESSAGES.get(rule.code, "unknown error")
            payload = {
                "success": False,
                "result": None,
                "code": rule.code,
                "message": message,
                "log_id": log_id,
            }
            response = Response.of_json(payload)
        case "expired_url":
            response = storage_error(403, "RequestExpired", "Request has expired.", log_id)
        case "huge":
            response = Response(
                headers=[("Content-Type", "image/jpeg")], body=_zeros(rule.size), length=rule.size
            )
        case "redirect":
            response = Response(status=302, headers=[("Location", rule.url or "http://169.254.169.254/")])
        case "hang":
            response = Response(fault=TransportFault("hang", seconds=rule.seconds))
        case _:
            response = Response(fault=TransportFault("reset", after_bytes=rule.after_bytes))
    response.outcome = outcome
    return response


def spoil(rule: Rule, response: Response, public_url: str) -> Response:
    """Spoil an honest answer."""
    match rule.kind:
        case "delay":
            response.fault = TransportFault("delay", seconds=rule.seconds)
        case "drip":
            response.fault = TransportFault("drip", seconds=rule.seconds, chunk=rule.chunk)
        case "truncate":
            response.fault = TransportFault("truncate", after_bytes=rule.after_bytes)
        case "reset":
            response.fault = TransportFault("reset", after_bytes=rule.after_bytes)
        case "hang":
            response.fault = TransportFault("hang", seconds=rule.seconds)
        case "wrong_content_type":
            response.replace_header("Content-Type", rule.content_type)
        case "foreign_url" | "internal_url":
            default = "https://media.example.net" if rule.kind == "foreign_url" else "http://169.254.169.254"
            payload = _moved(response.payload, public_url, rule.url or default)
            response = Response.of_json(payload, status=response.status)
        case "not_image":
            body = b"<!DOCTYPE html><html><body>not a picture</body></html>"
            kind = response.header("Content-Type") or "image/jpeg"
            response = Response.of_bytes(body, kind)
        case "truncated_image":
            body = b"".join(response.chunks())
            half = body[: len(body) // 2]
            response = Response.of_bytes(
                half, response.header("Content-Type") or "image/jpeg", status=response.status
            )
        case _:
            # wrong_range and ignore_range act where the range is read.
            pass
    response.outcome = f"fault:{rule.kind}"
    return response


def without_range(request: Request) -> Request:
    """The same request as if it had asked for the whole."""
    headers = {name: text for name, text in request.headers.items() if name != "range"}
    return dataclasses.replace(request, headers=headers)


def storage_error(status: int, code: str, message: str, request_id: str) -> Response:
    """An error of the object storage (API reference 7: a 4xx, most likely 403)."""
    body = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
        f"<RequestId>{request_id}</RequestId></Error>"
    )
    return Response.of_bytes(body.encode(), "application/xml", status=status, outcome=f"{status}")


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
