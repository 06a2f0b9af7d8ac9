"""Three days of verifications as they come, for tests of the dashboard."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

from django_faceprint.clock import now
from django_faceprint.models import Plan, VerificationSession
from tests import factories

CODES = ["223120", "223120", "223120", "222351", "222351", "222356", "222202", "216500", "223114", ""]
HOUR = timedelta(hours=1)


def make_days(plan: Plan, *, sessions: int = 120, calls: int = 60, hours: int = 70, seed: int = 5) -> None:
    """Sessions of every kind, of ages up to *hours*, and calls with their failures."""
    run = random.Random(seed)
    VerificationSession.objects.bulk_create(
        _session(plan, run, now() - HOUR * run.uniform(0.1, hours)) for _ in range(sessions)
    )
    for _ in range(calls):
        factories.make_call(
            at=now() - HOUR * run.uniform(0, hours),
            endpoint=run.choice(["result_detail", "result_simple", "result_media_query", "oauth_token"]),
            outcome=run.choice(["ok"] * 12 + ["transport", "slow_down", "not_started"]),
            latency=run.choice([0.08, 0.2, 0.4, 0.9, 3.0]),
        )


def _session(plan: Plan, run: random.Random, at: Any) -> VerificationSession:
    verdict = run.choices(["passed", "failed", "expired", "unknown", "pending"], [60, 20, 10, 1, 5])[0]
    values: dict[str, Any] = {}
    if verdict == "passed":
        state = run.choices(["complete", "partial", "lost", "collecting"], [90, 1, 1, 5])[0]
        values = {"score": run.uniform(80, 99), "threshold": 80.0, "archive_state": state}
        values |= {"is_demoted": run.random() < 0.1}
        if state == "complete":
            values["archived_at"] = at + timedelta(minutes=5 + run.choice([0.1, 0.6, 4, 40]))
    elif verdict == "failed":
        code = run.choice(CODES)
        values = {"error_code": code, "error_class": "verification_failed" if code else ""}
        values |= {"score": run.gauss(60, 15), "threshold": 80.0, "archive_state": "complete"}
    elif verdict == "expired":
        values = {"archive_state": "not_applicable"}
    if verdict not in ("pending", "expired"):
        values["returned_at"] = at + timedelta(minutes=4)
    if verdict != "pending":
        values["decided_at"] = at + timedelta(minutes=5)
    return VerificationSession(
        environment="sandbox",
        application="default",
        plan=plan,
        created_at=at,
        token_answered_at=at,
        identity_accepted_at=at if run.random() < 0.97 or verdict != "expired" else None,
        verdict=verdict,
        **values,
    )
