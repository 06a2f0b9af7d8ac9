"""HTTP requests and responses of the sandbox, independent of any socket."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

MAX_FORM_FIELDS = 100


@dataclass(frozen=True)
class Request:
    """One HTTP request. ``target`` is path and query as sent; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)
    peer: str = "127.0.0.1"

    @property
    def path(self) -> str:
        """The decoded path."""
        return unquote(urlsplit(self.target).path, errors="replace")

    @property
    def query(self) -> dict[str, str]:
        """Query parameters; the last of a repeated name wins."""
        return parse_form(urlsplit(self.target).query)

    @property
    def form(self) -> dict[str, str]:
        """The fields of an ``application/x-www-form-urlencoded`` body; empty for any other body."""
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            return {}
        return parse_form(self.body.decode("utf-8", "replace"))


def parse_form(text: str) -> dict[str, str]:
    """Decode ``a=1&b=2``; empty for more than a hundred fields."""
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        return {}


@dataclass(frozen=True)
class TransportFault:
    """A fault of the transport; the response itself is complete.

    ``hang``: wait ``seconds``, then close without an answer. ``delay``: wait, then answer. ``drip``: send
    ``chunk`` bytes of the body every ``seconds``. ``truncate``: announce the full length, send
    ``after_bytes`` (default: half), then close. ``reset``: the same, but with a TCP reset (default: at once).
    """

    kind: Literal["hang", "delay", "drip", "truncate", "reset"]
    seconds: float = 0.0
    chunk: int = 1
    after_bytes: int | None = None


@dataclass
class Response:
    """One HTTP response: ``body`` is bytes, or an iterator of exactly ``length`` bytes.

    The transport calls :meth:`completed` after it has sent the last byte; only then the ledger counts an
    asset as served.
    """

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes | Iterator[bytes] = field(default=b"", repr=False)
    length: int = 0
    fault: TransportFault | None = None
    payload: Any = field(default=None, repr=False)
    outcome: str = "ok"
    on_completed: list[Callable[[], None]] = field(default_factory=list, repr=False)

    @classmethod
    def of_bytes(
        cls,
        body: bytes,
        content_type: str,
        *,
        status: int = 200,
        outcome: str = "ok",
        headers: Mapping[str, str] = {},
    ) -> Response:
        """A response with a body in memory."""
        fields = [("Content-Type", content_type), *headers.items()]
        return cls(status=status, headers=fields, body=body, length=len(body), outcome=outcome)

    @classmethod
    def of_json(cls, payload: Any, *, status: int = 200, outcome: str = "ok") -> Response:
        """A response in JSON. ``payload`` stays attached so that a fault can rewrite it."""
        # Half a surrogate pair becomes the JSON escape that it was read from.
        body = json.dumps(payload, ensure_ascii=False).encode("utf-8", "backslashreplace")
        response = cls.of_bytes(body, "application/json;charset=UTF-8", status=status, outcome=outcome)
        response.payload = payload
        return response

    @classmethod
    def of_html(
        cls, html: str, *, status: int = 200, outcome: str = "ok", headers: Mapping[str, str] = {}
    ) -> Response:
        """A response in HTML."""
        return cls.of_bytes(
            html.encode(), "text/html; charset=utf-8", status=status, outcome=outcome, headers=headers
        )

    def header(self, name: str) -> str | None:
        """The first header of that name, in any case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def replace_header(self, name: str, value: str) -> None:
        """Set a header that may occur once."""
        self.headers = [(key, text) for key, text in self.headers if key.lower() != name.lower()]
        self.headers.append((name, value))

    def chunks(self) -> Iterator[bytes]:
        """The body in pieces; may be consumed once."""
        return iter((self.body,)) if isinstance(self.body, bytes) else self.body

    def completed(self) -> None:
        """Record that the whole response was sent."""
        for callback in self.on_completed:
            callback()
        self.on_completed.clear()

    def read(self) -> bytes:
        """The whole body, counted as sent; for callers without a socket."""
        body = b"".join(self.chunks())
        self.body = body
        self.completed()
        return body
