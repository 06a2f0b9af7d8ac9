"""One made-up record while it is made: its plan, its rows, and random values that several parts need."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django_faceprint.client import ErrorClass
from django_faceprint.evidence.expected import ExpectedAsset, expected_assets
from django_faceprint.models import MediaAsset, Plan, VerificationSession

from .sample_people import Person

Values = dict[str, Any]
Verdict = VerificationSession.Verdict
Kind = MediaAsset.Kind

#: The beginning of the records' references, and of the names of files that do not exist.
PREFIX = "fill-"
LOW_SCORE_CODE = "900002"

#: Plan IDs that Baidu's sandbox does not know: nobody can start a session with one.
PLANS: dict[str, Values] = {
    "99250001": {"name": "样本 · 指定用户 · 动作活体", "records_video": True, "retention_days": 1_095},
    "99250002": {
        "name": "样本 · 身份证识别双面 · 静默活体",
        "identity_entry": Plan.IdentityEntry.OCR,
        "card_sides": Plan.CardSides.BOTH,
        "liveness": Plan.Liveness.SILENT,
        "records_video": True,
        "closes_on_failure": False,
        "retention_days": 1_095,
    },
    "99250003": {
        "name": "样本 · 仅活体检测（不录制）",
        "match_source": Plan.MatchSource.LIVENESS_ONLY,
        "identity_entry": Plan.IdentityEntry.NONE,
        "retention_days": 180,
    },
    "99250004": {
        "name": "样本 · 指定用户 · 炫瞳活体",
        "liveness": Plan.Liveness.COLORFUL,
        "records_video": True,
        "accepts_non_mainland": True,
        "threshold": 85.0,
        "retention_days": 365,
    },
    "99250005": {
        "name": "样本 · 自建人脸库 · 数字活体录制",
        "match_source": Plan.MatchSource.MATCH_IMAGE,
        "identity_entry": Plan.IdentityEntry.NONE,
        "liveness": Plan.Liveness.RECORDED_DIGITS,
        "records_video": True,
        "retention_days": 1_095,
    },
}
PLAN_SHARES = (40, 25, 15, 12, 8)

#: Why people fail: code, share, and the check that the plan must have for it.
FAILURES: tuple[tuple[str, int, str], ...] = (
    # The sandbox's code for a score under the threshold; Baidu has published none.
    (LOW_SCORE_CODE, 34, "compares"),
    ("223120", 22, ""),
    ("222351", 12, "identity"),
    ("222356", 8, "compares"),
    ("222350", 4, "identity"),
    ("222354", 3, "identity"),
    ("222355", 2, "identity"),
    ("222360", 2, "identity"),
    ("222202", 2, ""),
    ("223114", 3, ""),
    ("223127", 2, ""),
    ("223122", 1, ""),
    ("223131", 3, ""),
    ("216500", 2, ""),
)
MESSAGES = {
    LOW_SCORE_CODE: "score below threshold",
    "223120": "liveness check failed",
    "222351": "name and number do not match",
}


class Rng(random.Random):
    """Random values. Not by ``hash()``, which differs between processes; nothing here is a secret."""

    def chance(self, share: float) -> bool:
        """True in that share of all calls."""
        return self.random() < share

    def id_at(self, at: datetime) -> UUID:
        """A public ID, ordered by *at* as those of other rows are."""
        value = (int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62)
        return UUID(int=value | (self.getrandbits(12) << 64) | self.getrandbits(62))

    def log_id(self) -> str:
        """A log id of Baidu's."""
        return str(1_900_000_000_000_000_000 + self.randrange(100_000_000_000_000_000))

    def error(self, error_class: ErrorClass, code: str) -> Values:
        """The columns of a session's error."""
        return {
            "error_class": error_class.value,
            "error_code": code,
            "error_message": MESSAGES.get(code, ""),
            "error_log_id": self.log_id() if code else "",
        }


@dataclass
class Rows:
    """Rows of one batch. Those of a record have its index in ``sessions`` as ``session_id``."""

    sessions: list[Values] = field(default_factory=list)
    assets: list[Values] = field(default_factory=list)
    attempts: list[Values] = field(default_factory=list)
    consents: list[Values] = field(default_factory=list)
    calls: list[Values] = field(default_factory=list)


@dataclass(frozen=True)
class PlanFacts:
    """A plan with what each record needs of it, computed once."""

    plan: Plan
    compares: bool
    retention: timedelta | None
    file_retention: dict[str, timedelta | None]
    expected: dict[str, list[ExpectedAsset]]
    failures: list[str]
    failure_shares: list[int]

    @classmethod
    def of(cls, plan: Plan) -> PlanFacts:
        """Compute the facts of *plan*."""
        compares = plan.match_source != Plan.MatchSource.LIVENESS_ONLY
        checks = {
            "": True,
            "compares": compares,
            "identity": plan.match_source == Plan.MatchSource.AUTHORITY,
        }
        possible = [(code, share) for code, share, check in FAILURES if checks[check]]
        return cls(
            plan=plan,
            compares=compares,
            retention=plan.record_span,
            file_retention={kind.value: plan.span_of(kind.value) for kind in Kind},
            expected={verdict: _expected(plan, verdict) for verdict in (Verdict.PASSED, Verdict.FAILED)},
            failures=[code for code, _ in possible],
            failure_shares=[share for _, share in possible],
        )

    def failure(self, rng: Rng) -> str:
        """The code of a failed attempt."""
        return rng.choices(self.failures, self.failure_shares)[0]


@dataclass
class Draft:
    """One record while it is made; ``values`` are its session's columns."""

    index: int
    public_id: UUID
    facts: PlanFacts
    values: Values
    person: Person | None
    with_thumbnail: bool
    attempts: int = 0
    erased_at: datetime | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the record."""
        return self.facts.plan

    @property
    def passed(self) -> bool:
        """Whether the verdict is ``passed``."""
        return bool(self.values["verdict"] == Verdict.PASSED)


def _expected(plan: Plan, verdict: str) -> list[ExpectedAsset]:
    """The files of a record with that verdict, without the faces of its attempts."""
    reads_card = plan.identity_entry == Plan.IdentityEntry.OCR
    expected = expected_assets(plan, verdict, with_id_front=reads_card, with_id_back=reads_card)
    if plan.needs_match_image:
        expected.append(
            ExpectedAsset(Kind.MATCH_IMAGE, MediaAsset.Source.UPLOAD, state=MediaAsset.State.STORED)
        )
    return expected
