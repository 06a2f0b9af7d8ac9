"""The result of a try on the page: code, scores and risk, by plan, outcome and script (API reference 3.8)."""

from __future__ import annotations

import dataclasses

from .errors import SERVICE_MESSAGES
from .options import Plan, Script
from .sessions import Attempt, Session
from .store import Store

SPOOFING_CODE = 223131
LIVENESS_CODE = 223120
DEMOTION_REFUSED_CODE = 216500
#: Codes of an attempt that ended at the liveness check, before any comparison.
LIVENESS_CODES = frozenset(
    {LIVENESS_CODE, SPOOFING_CODE, DEMOTION_REFUSED_CODE, 216510, *range(223114, 223128)}
)


def make_attempt(store: Store, session: Session, *, passed: bool, code: int, demote: bool) -> Attempt:
    """The next attempt of a session; *code* says why it failed. The session is not changed."""
    plan, script = session.plan, session.script
    if script and script.is_demote is not None:
        demote = script.is_demote
    demote = demote and plan.realtime
    # Then no backend call happened at all (API reference 3.8, verify_log_id).
    refused = demote and not plan.allow_demotion
    if refused:
        passed, code = False, DEMOTION_REFUSED_CODE
    low_score = not passed and code == store.switches.low_score_code
    attempt = Attempt(
        order=len(session.attempts) + 1,
        at=store.clock.now(),
        code="0" if passed else str(code),
        message=_message(code, passed=passed, refused=refused, low_score=low_score),
        passed=passed,
        score=_score(store, plan.threshold, passed) if _compares(plan, passed or low_score) else None,
        liveness_score=_liveness_score(store, plan, passed, code),
        spoofing=None if refused else _spoofing_score(store, passed, code),
        is_demote=demote if plan.realtime else None,
        charged=passed or low_score or (plan.match_source == "liveness_only" and code == LIVENESS_CODE),
        verify_log_id="" if refused else store.log_id(),
        risk_level="4" if plan.risk_control else None,
        risk_tag="" if plan.risk_control else None,
        identity=session.identity,
    )
    return _scripted(attempt, script) if script else attempt


def _message(code: int, *, passed: bool, refused: bool, low_score: bool) -> str:
    if passed:
        return "核验成功"
    if refused:
        return "浏览器不支持实时活体，方案不允许降级"
    if low_score:
        return "相似度低于阈值"
    return SERVICE_MESSAGES.get(code, "认证未通过")


def _compares(plan: Plan, reached_comparison: bool) -> bool:
    return reached_comparison and plan.match_source != "liveness_only"


def _score(store: Store, threshold: float, passed: bool) -> float:
    low, high = (threshold, 100.0) if passed else (threshold / 2, threshold)
    return round(low + (high - low) * (0.05 + 0.9 * store.random.random()), 6)


def _liveness_score(store: Store, plan: Plan, passed: bool, code: int) -> float:
    if plan.liveness == "colourful" or (not passed and code in LIVENESS_CODES):
        return 0.0
    return _high_score(store)


def _spoofing_score(store: Store, passed: bool, code: int) -> float:
    if not passed and code == SPOOFING_CODE:
        return _high_score(store)
    return round(store.random.random() / 2000, 10)


def _high_score(store: Store) -> float:
    """0.9 to 0.999."""
    return round(0.9 + store.random.random() / 10.1, 8)


def _scripted(attempt: Attempt, script: Script) -> Attempt:
    """The attempt with the values that the script fixes."""
    scores = {"score": script.score, "liveness_score": script.liveness_score, "spoofing": script.spoofing}
    return dataclasses.replace(
        attempt,
        **{name: float(value) for name, value in scores.items() if value is not None},  # type: ignore[arg-type]
        message=script.message or attempt.message,
        risk_level=script.risk_level or attempt.risk_level,
        risk_tag=attempt.risk_tag if script.risk_tag is None else script.risk_tag,
    )
