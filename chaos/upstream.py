"""The sandbox in Baidu's place: its faults, its ledger and its H5 page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import requests

QUERIES = ("result_simple", "result_detail", "result_stat", "result_media_query", "result_getall")
SUBMISSIONS = ("oauth_token", "verify_token_generate", "idcard_submit", "upload_match_image")
FILES = ("media", "simple_image")

#: Kinds of faults with their relative weights, by kind of request.
_HTTP: tuple[tuple[dict[str, Any], float], ...] = (
    ({"kind": "http_500"}, 1.5),
    ({"kind": "http_502"}, 1.0),
    ({"kind": "http_503"}, 1.5),
    ({"kind": "http_504"}, 1.0),
    ({"kind": "reset"}, 2.0),
    ({"kind": "reset", "after_bytes": 100}, 1.0),
    ({"kind": "hang", "seconds": 1.0}, 0.8),
    ({"kind": "delay", "seconds": 0.3}, 1.0),
    ({"kind": "truncate"}, 2.0),
    ({"kind": "empty"}, 1.0),
)
_JSON: tuple[tuple[dict[str, Any], float], ...] = (
    *_HTTP,
    ({"kind": "drip", "seconds": 0.05, "chunk": 100}, 1.0),
    ({"kind": "html"}, 1.0),
    ({"kind": "malformed_json"}, 1.0),
    ({"kind": "nan_json"}, 1.0),
    ({"kind": "deep_json"}, 0.3),
    ({"kind": "redirect"}, 0.5),
    ({"kind": "gateway", "code": 2}, 0.7),
    ({"kind": "gateway", "code": 17}, 0.3),
    ({"kind": "gateway", "code": 18}, 0.5),
    ({"kind": "gateway", "code": 110}, 0.3),
    ({"kind": "service", "code": 283512}, 1.0),
    # The request is carried out, but the caller gets no answer.
    ({"kind": "reset", "after": True}, 1.0),
)
_NAMING: tuple[tuple[dict[str, Any], float], ...] = (
    ({"kind": "foreign_url"}, 0.7),
    ({"kind": "internal_url"}, 0.7),
)
_FILE: tuple[tuple[dict[str, Any], float], ...] = (
    *_HTTP,
    ({"kind": "drip", "seconds": 0.05, "chunk": 1000}, 1.0),
    ({"kind": "reset", "after_bytes": 2000}, 1.5),
    ({"kind": "expired_url"}, 3.0),
    ({"kind": "http_404"}, 0.5),
    ({"kind": "html"}, 0.7),
    ({"kind": "not_image"}, 1.0),
    ({"kind": "truncated_image"}, 2.0),
    ({"kind": "wrong_range"}, 1.0),
    ({"kind": "ignore_range"}, 1.0),
    ({"kind": "wrong_content_type"}, 0.7),
    ({"kind": "redirect"}, 0.5),
    ({"kind": "huge", "size": 300_000}, 0.5),
)
#: Number of hangs beyond the client's timeout of 20 s, each of which blocks a thread of a worker that long.
_LONG_HANGS = 6


def fault_rules(share: float) -> list[dict[str, Any]]:
    """Rules for the sandbox by which *share* of all answers are faults, of every kind."""
    rules: list[dict[str, Any]] = [
        {"endpoint": endpoint, "kind": "hang", "seconds": 21, "skip": 40, "probability": 0.01, "count": 1}
        for endpoint in (*QUERIES, FILES[0])[:_LONG_HANGS]
    ]
    for endpoint in (*QUERIES, *SUBMISSIONS, *FILES):
        kinds = _FILE if endpoint in FILES else _JSON
        if endpoint in ("result_simple", "result_media_query", "result_getall"):
            kinds += _NAMING
        rules += [{"endpoint": endpoint, **rule} for rule in _with_probabilities(kinds, share)]
    return rules


def _with_probabilities(
    kinds: Sequence[tuple[Mapping[str, Any], float]], share: float
) -> list[dict[str, Any]]:
    """Rules with probabilities: each is tried only if those before it did not apply."""
    total = sum(weight for _, weight in kinds)
    left = 1.0
    rules = []
    for fields, weight in kinds:
        part = share * weight / total
        rules.append({**fields, "probability": part / left})
        left -= part
    return rules


def fault_names() -> list[str]:
    """The kinds of faults in :func:`fault_rules`, with the names of :meth:`Sandbox.faults_by_kind`."""
    return sorted({_name(fields) for fields, _ in (*_JSON, *_NAMING, *_FILE)})


def _name(rule: Mapping[str, Any]) -> str:
    kind = str(rule["kind"])
    if kind == "gateway":
        return f"code {rule['code']}"
    return f"http {rule['status']}" if kind == "http" else kind.replace("_", " ")


class Sandbox:
    """The sandbox's control API."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = requests.Session()
        self._http.trust_env = False

    def finish(self, verify_token: str, outcome: str) -> None:
        """Finish the H5 page with ``pass``, ``demote``, ``giveup`` or the code of a failure."""
        body: dict[str, Any] = {"verify_token": verify_token, "outcome": "fail", "code": outcome}
        if outcome in ("pass", "giveup", "demote"):
            body = {"verify_token": verify_token, "outcome": "pass" if outcome == "demote" else outcome}
            body["demote"] = outcome == "demote"
        self._call("POST", "finish", body)

    def add_faults(self, rules: list[dict[str, Any]]) -> None:
        self._call("POST", "faults", rules)

    def clear_faults(self) -> None:
        self._call("DELETE", "faults")

    def faults_by_kind(self) -> Counter[str]:
        """The number of faults so far by kind, with one kind for each gateway code."""
        hits: Counter[str] = Counter()
        for rule in self._call("GET", "faults"):
            hits[_name(rule)] += rule["hits"]
        return hits

    def calls(self) -> dict[str, dict[str, int]]:
        """The number of answers so far by endpoint and outcome."""
        # No session has this token, so that the answer is short.
        calls: dict[str, dict[str, int]] = self._call("GET", "ledger?hashes=0&verify_token=none")["calls"]
        return calls

    def ledger(self, *, hashes: bool = True) -> dict[str, Any]:
        """The ledger: sessions, files and calls."""
        ledger: dict[str, Any] = self._call("GET", f"ledger?hashes={int(hashes)}")
        return ledger

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        reply = self._http.request(method, f"{self.url}/_sandbox/{path}", json=body, timeout=120)
        reply.raise_for_status()
        return reply.json()
