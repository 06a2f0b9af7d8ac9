"""The sandbox's state, shared by its parts: plans, access tokens, sessions, scripts, switches and the ledger.

Everything is in memory and ends with the process. The bytes of media are never kept, only their hashes, once
somebody asked for them.
"""

from __future__ import annotations

import random
import secrets
import string
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import datetime, timedelta
from threading import RLock
from typing import Any

from .clock import SandboxClock
from .media import Content, MediaGenerator, digest
from .options import APPS, PLANS, App, Plan, Script, Switches
from .sessions import PAGE_LIFE, Asset, Session

ACCESS_TOKEN_LIFE = timedelta(days=30)
DEFAULT_URL = "http://127.0.0.1:8400"
# The oldest are forgotten first.
MAX_SESSIONS = 50_000
MAX_ACCESS_TOKENS = 20_000
ALPHABET = string.ascii_letters + string.digits


class Store:
    """The state of one sandbox. Every method is safe to call from several threads.

    ``public_url`` is the base of the URLs in answers; ``random`` draws scores and log ids,
    the same in every run; ``monotonic`` measures the windows of the QPS limit.
    """

    def __init__(
        self,
        media: MediaGenerator,
        clock: SandboxClock,
        *,
        public_url: str | None = None,
        switches: Switches,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lock = RLock()
        self.media = media
        self.clock = clock
        self.public_url = public_url.rstrip("/") if public_url else None
        self.random = random.Random(0)  # noqa: S311 -- scores and log ids, no secrets
        self.apps = {app.api_key: app for app in APPS}
        self._initial_switches = switches
        self._monotonic = monotonic
        self.clear()

    def clear(self) -> None:
        """Forget everything but clock and URL; plans and switches return to their initial values."""
        with self.lock:
            self.switches = self._initial_switches
            self.plans: dict[str, Plan] = {plan.plan_id: plan for plan in PLANS}
            self.sessions: OrderedDict[str, Session] = OrderedDict()
            self.scripts: list[Script] = []
            self.calls: dict[str, Counter[str]] = {}
            self.oauth_tokens = 0
            self._access_tokens: OrderedDict[str, tuple[App, datetime]] = OrderedDict()
            self._recent: dict[tuple[str, str], deque[float]] = {}

    @property
    def base_url(self) -> str:
        """The base of the URLs in answers, without a slash at its end."""
        return self.public_url or DEFAULT_URL

    def log_id(self) -> str:
        """10 to 19 decimal digits; every other one is beyond 2^53 (API reference 3.0)."""
        with self.lock:
            digits = self.random.choice((10, 15, 18, 19))
            return str(self.random.randrange(10 ** (digits - 1), min(10**digits, 2**63)))

    def issue_access_token(self, app: App) -> tuple[str, datetime]:
        """A new access token and its end; older ones stay valid (API reference 1.2)."""
        expiry = self.clock.now() + ACCESS_TOKEN_LIFE
        seconds = int(ACCESS_TOKEN_LIFE.total_seconds())
        token = f"24.{secrets.token_hex(16)}.{seconds}.{int(expiry.timestamp())}.{app.account}-{app.app_id}"
        with self.lock:
            self.oauth_tokens += 1
            self._access_tokens[token] = (app, expiry)
            while len(self._access_tokens) > MAX_ACCESS_TOKENS:
                self._access_tokens.popitem(last=False)
        return token, expiry

    def access_token(self, token: str) -> tuple[App, datetime] | None:
        """The application of an access token and when it ends."""
        with self.lock:
            return self._access_tokens.get(token)

    def revoke_access_tokens(self) -> None:
        """Make every access token invalid (110)."""
        with self.lock:
            self._access_tokens.clear()

    def within_qps(self, account: str, endpoint: str) -> bool:
        """Count a call. False if it exceeds the limit per account and interface (API reference 4.5)."""
        with self.lock:
            limit = self.switches.qps
            if limit <= 0:
                return True
            now = self._monotonic()
            recent = self._recent.setdefault((account, endpoint), deque())
            # Below one call per second the window grows instead.
            window, maximum = (1.0, int(limit)) if limit >= 1 else (1.0 / limit, 1)
            while recent and recent[0] <= now - window:
                recent.popleft()
            if len(recent) >= maximum:
                return False
            recent.append(now)
            return True

    def new_session(
        self, app: App, plan: Plan, *, success_url: str | None, failed_url: str | None
    ) -> Session:
        """Issue a verify_token of 24 characters, with the first script that waits for such a session."""
        token = "".join(secrets.choice(ALPHABET) for _ in range(24))
        session = Session(token, app, plan, self.clock.now(), success_url=success_url, failed_url=failed_url)
        with self.lock:
            for script in self.scripts:
                if script.count > 0 and script.plan_id in (None, plan.plan_id):
                    script.count -= 1
                    session.script = script
                    break
            self.sessions[token] = session
            while len(self.sessions) > MAX_SESSIONS:
                self.sessions.popitem(last=False)
        return session

    def add_script(self, script: Script) -> None:
        """Bind a script to its token, or keep it for the next sessions.

        Raises ``ValueError`` for an unknown token.
        """
        with self.lock:
            if script.verify_token is None:
                self.scripts.append(script)
                return
            session = self.sessions.get(script.verify_token)
            if session is None:
                raise ValueError("no such verify_token")
            session.script = script

    def count_call(self, endpoint: str, outcome: str) -> None:
        """Enter a call in the ledger."""
        with self.lock:
            self.calls.setdefault(endpoint, Counter())[outcome] += 1

    def count_delivery(self, asset: Asset, *, complete: bool) -> None:
        """Enter in the ledger that an asset was sent: up to its last byte, or a part before it."""
        with self.lock:
            if complete:
                asset.served += 1
            else:
                asset.partly_served += 1

    def learn(self, session: Session, asset: Asset, content: Content | None = None) -> None:
        """Compute hash and size of an asset, once; from ``content``, or generate it for that."""
        if asset.sha256 is None or asset.size is None:
            content = content or self.media.content(asset.kind, session.seed(*asset.key))
            asset.size = content.size
            asset.sha256 = digest(content)

    def ledger(self, *, verify_token: str | None, hashes: bool) -> dict[str, Any]:
        """Everything issued and served; see :mod:`django_faceprint.sandbox.control` for its shape."""
        now = self.clock.now()
        with self.lock:
            chosen = [s for s in self.sessions.values() if verify_token in (None, s.token)]
            calls = {endpoint: dict(counts) for endpoint, counts in sorted(self.calls.items())}
            tokens = self.oauth_tokens
        return {
            "now": now.isoformat(),
            "oauth_tokens": tokens,
            "calls": calls,
            "sessions": [self._entry(session, now, hashes) for session in chosen],
        }

    def _entry(self, session: Session, now: datetime, hashes: bool) -> dict[str, Any]:
        with self.lock:
            assets = session.assets(self.switches)
            attempts = list(session.attempts)
            entry: dict[str, Any] = {
                "verify_token": session.token,
                "app": session.app.api_key,
                "plan_id": session.plan.plan_id,
                "state": session.state(now),
                "created_at": session.created_at.isoformat(),
                "opened_at": session.opened_at.isoformat() if session.opened_at else None,
                "finished_at": attempts[-1].at.isoformat() if attempts else None,
                "closed_at": session.closed_at.isoformat() if session.closed_at else None,
                "gave_up": session.gave_up,
                "page_until": (session.created_at + PAGE_LIFE).isoformat(),
                "results_until": session.results_until().isoformat(),
            }
        if hashes:
            for asset in assets:
                self.learn(session, asset)
        entry["attempts"] = [
            {"order": a.order, "code": a.code, "passed": a.passed, "at": a.at.isoformat()} for a in attempts
        ]
        entry["assets"] = [_asset_entry(asset) for asset in assets]
        return entry


def _asset_entry(asset: Asset) -> dict[str, Any]:
    return {
        "kind": asset.kind,
        "attempt": asset.attempt,
        "position": asset.position,
        "sha256": asset.sha256,
        "size": asset.size,
        "content_type": asset.content_type,
        "available_from": list(asset.available_from),
        "available_until": asset.available_until.isoformat(),
        "served": asset.served,
        "partly_served": asset.partly_served,
    }
