"""Synthetic records in any number, as years of use leave them: to look at the console and to measure it.

Only ever in a sandbox. People, numbers and references are made up: no region of China has a number that
begins with 99, and every reference begins with :data:`PREFIX`, by which the records are found and removed.
No file is stored: rows say that files are archived, a few of them carry a thumbnail, and opening one fails.
The engine leaves the records alone, as nothing wakes them up.

Rows are written past Django's models, which would take most of the time; what a row does not say has the
field's default. Values are sealed and indexed as those of any other record.
"""

from __future__ import annotations

import io
import json
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import Any, Literal, TypeVar
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections, models, reset_queries, router, transaction
from django.utils.timezone import localtime
from PIL import Image, ImageDraw

from django_faceprint.base.deadlines import PendingDeadlines, session_deadlines, undecided_deadlines
from django_faceprint.client import ErrorClass
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.evidence import expected as expected_evidence
from django_faceprint.evidence import files as evidence_files
from django_faceprint.evidence.thumbnails import make_thumbnail
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import (
    ConsentRecord,
    MediaAsset,
    Plan,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.privacy.fields import EncryptedField
from django_faceprint.privacy.files import new_file_key, seal_thumbnail, wrap_file_key
from django_faceprint.records import rollups
from django_faceprint.upstream.errors import UNSAFE_MEDIA

T = TypeVar("T")
Values = dict[str, Any]
Files = Literal["none", "main", "all"]

#: What references of records begin with, and names of files that are not there.
PREFIX = "fill-"
BATCH = 5_000
#: Newest records of a run that get a thumbnail.
THUMBNAILS = 1_000
#: Records younger than this have their calls to Baidu on record.
CALLS_WITHIN = timedelta(days=7)
DAY = timedelta(days=1)
#: A record about which nothing is known for so long is one that Baidu does not tell about.
OVERDUE = timedelta(hours=3)

Verdict = VerificationSession.Verdict
ArchiveState = VerificationSession.ArchiveState
Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source

#: The plans by their IDs, which Baidu's sandbox does not know: nobody can start a session with one.
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

#: How many begin in each hour of a day, and on a day of the weekend against one of the week.
HOURS = (2, 1, 1, 1, 1, 2, 5, 12, 30, 62, 70, 58, 36, 46, 64, 66, 58, 46, 30, 24, 20, 16, 9, 4)
WEEKEND = 0.4
#: The last day against those before it, so that there is something to do.
LAST_DAY = 2.0

#: Of those whose time for it has come.
VERDICTS = {Verdict.PASSED: 790, Verdict.FAILED: 118, Verdict.EXPIRED: 86, Verdict.UNKNOWN: 6}
#: Of the last day: those about whom nothing is known yet, and those whose files are still to be fetched.
PENDING_SHARE, COLLECTING_SHARE = 0.008, 0.012
#: Of those that passed: not all, or nothing, was archived in time.
PARTIAL_SHARE, LOST_SHARE = 0.012, 0.004
REPEATED_SHARE = 0.25
ERASED_SHARE = 0.004
DEMOTED_SHARE = 0.03
CONSENT_SHARE = 0.85

PURPOSES = ("开户", "登录", "找回密码", "提额", "签约", "补卡", "提现", "换绑手机")
CHANNELS = ("app", "mini-program", "web", "counter")

#: Why people fail: code, share, and what the plan must do for it to happen.
FAILURES: tuple[tuple[str, int, str], ...] = (
    # What the sandbox says of a score under the threshold, for which Baidu has published no code.
    ("900002", 34, "compares"),
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
    "900002": "score below threshold",
    "223120": "liveness check failed",
    "222351": "name and number do not match",
}
#: What may have been in the way of a session before it ended: class, code, share.
TROUBLES = (
    (ErrorClass.RETRY, "http_error", 5),
    (ErrorClass.RETRY, "", 3),
    (ErrorClass.SLOW_DOWN, "18", 3),
    (ErrorClass.CONFIGURATION, "6", 2),
    (ErrorClass.CONFIGURATION, "283435", 1),
    (ErrorClass.CALLER, "222022", 4),
    (ErrorClass.REAUTHENTICATE, "110", 1),
)

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
    "苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江"
    "史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
)
GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建国文志海波宁云欣怡"
    "梓涵浩宇轩博雅思远佳琪子墨晨曦若彤一诺"
)


@dataclass
class Filled:
    """What a run has made or removed so far."""

    sessions: int = 0
    files: int = 0
    attempts: int = 0


Progress = Callable[[Filled], None]


def refuse_outside_sandbox() -> None:
    """Raise :class:`FaceprintConfigurationError` where real people are, or may be, verified."""
    if not conf.debug:
        raise FaceprintConfigurationError("Records are made up only while DEBUG is on.")
    if conf.environment == "live":
        raise FaceprintConfigurationError("Records are made up in a sandbox only, and API_URL is Baidu.")


def sample_records() -> VerificationSessionQuerySet:
    """The records that were made here."""
    return VerificationSession.objects.filter(
        plan__plan_id__in=PLANS,
        environment=VerificationSession.Environment.SANDBOX,
        reference__startswith=PREFIX,
    )


def fill(
    count: int,
    *,
    years: float = 2.0,
    seed: int = 1,
    batch: int = BATCH,
    files: Files = "main",
    thumbnails: int = THUMBNAILS,
    progress: Progress | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Filled:
    """Add *count* records that began within the last *years*; the same ones for a *seed*, but for the time.

    A further run adds others, numbered on. *files*: rows of no file, of those that a look begins with
    (``main``: face, video, match image), or of all that a record has. *thumbnails*: of so many of the newest
    records. Written *batch* by *batch*, in a transaction each; *stop* is asked before each one.

    Raises as :func:`refuse_outside_sandbox`.
    """
    refuse_outside_sandbox()
    plans = _make_plans()
    last = sample_records().order_by("-pk").values_list("reference", flat=True).first()
    first = int(last.rpartition("-")[2]) + 1 if last else 1
    # Not by hash(), which differs from process to process; nothing here is a secret.
    noise = random.Random(f"{seed}/{first}")  # noqa: S311
    moment = now()
    maker = _Maker(plans, noise, moment, seed=seed, people=first + count, files=files)
    times = _times(count, years, moment, noise)
    tables = [
        _Table(model)
        for model in (VerificationSession, MediaAsset, VerificationAttempt, ConsentRecord, UpstreamCall)
    ]
    done = Filled()
    for start in range(0, count, batch):
        if stop():
            break
        rows = _Rows()
        for number in range(start, min(start + batch, count)):
            maker.make(rows, first + number, next(times), with_thumbnail=count - number <= thumbnails)
        _write(tables, rows)
        done.sessions += len(rows.sessions)
        done.files += len(rows.assets)
        done.attempts += len(rows.attempts)
        # While DEBUG is on, each connection keeps the texts of its statements.
        reset_queries()
        if progress is not None:
            progress(done)
    for table in tables:
        table.analyze()
    rollups.recount_all()
    return done


def remove(
    *, batch: int = BATCH, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
) -> Filled:
    """Take away every record that was made here, and the plans with them; entries of the access log stay.

    Raises as :func:`refuse_outside_sandbox`.
    """
    refuse_outside_sandbox()
    done = Filled()
    while not stop() and (
        rows := list(sample_records().order_by("pk").values_list("pk", "public_id")[:batch])
    ):
        _remove([pk for pk, _ in rows], [public_id for _, public_id in rows], done)
        reset_queries()
        if progress is not None:
            progress(done)
    Plan.objects.filter(plan_id__in=PLANS, sessions__isnull=True).delete()
    rollups.recount_all()
    return done


def _remove(pks: list[int], public_ids: list[UUID], done: Filled) -> None:
    sessions = VerificationSession.objects.filter(pk__in=pks)
    files = MediaAsset.objects.filter(session__in=pks)
    # Somebody may have had a file of such a record archived after all.
    real = files.exclude(stored_name="").exclude(stored_name__startswith=PREFIX)
    names = list(real.order_by().values_list("stored_name", flat=True))
    with transaction.atomic():
        UpstreamCall.objects.filter(session__in=pks).delete()
        ConsentRecord.objects.filter(session_id__in=public_ids).delete()
        done.attempts += VerificationAttempt.objects.filter(session__in=pks).delete()[0]
        done.files += files.delete()[0]
        sessions.delete()
    done.sessions += len(pks)
    evidence_files.discard(names)


def _make_plans() -> list[Plan]:
    aliases = list(conf.applications) or ["default"]
    return [
        Plan.objects.update_or_create(
            plan_id=plan_id,
            # More than one application where there is more than one, so that there is something to filter.
            defaults={**values, "application": aliases[number // 4 % len(aliases)], "is_active": False},
        )[0]
        for number, (plan_id, values) in enumerate(PLANS.items())
    ]


# --- times --------------------------------------------------------------------------------------------


def _times(count: int, years: float, moment: datetime, noise: random.Random) -> Iterator[datetime]:
    """*count* moments in order: by day and by night, on work days and Sundays, and rather more of late."""
    hours = max(round(years * 365.25 * 24), 24)
    shares = [_share_of_hour(moment - timedelta(hours=hours - place), place, hours) for place in range(hours)]
    bounds = [0.0, *accumulate(shares)]
    for number in range(count):
        at = (number + noise.random()) / count * bounds[-1]
        place = min(max(bisect_left(bounds, at) - 1, 0), hours - 1)
        part = (at - bounds[place]) / shares[place]
        yield moment - timedelta(hours=hours - place - min(part, 0.9999))


def _share_of_hour(begin: datetime, place: int, hours: int) -> float:
    local = localtime(begin)
    share = HOURS[local.hour] * (WEEKEND if local.weekday() >= 5 else 1.0) * (0.7 + 0.6 * place / hours)
    return share * LAST_DAY if place >= hours - 24 else share


# --- people -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Person:
    """Somebody who does not exist."""

    name: str
    number: str
    certificate_type: int
    born: date

    @property
    def is_child(self) -> bool:
        """Under 14, and so in need of a guardian's consent."""
        return self.born.year > 2015


def _person(number: int, seed: int) -> _Person:
    """The person with that number: always the same one, and no two with the same ID number."""
    mixed = (number * 2_654_435_761 + seed * 40_503) % (1 << 32)
    born = date(1950, 1, 1) + timedelta(days=mixed % 20_800)
    if mixed % 500 == 7:
        born = date(2016, 1, 1) + timedelta(days=mixed % 700)
    name = SURNAMES[mixed % len(SURNAMES)] + GIVEN[mixed // 128 % len(GIVEN)]
    if mixed // 8192 % 4:
        name += GIVEN[mixed // 32768 % len(GIVEN)]
    other = mixed // 1024 % 50
    if other == 1:
        return _Person(name, f"H{number:010d}", 1, born)
    if other == 2:
        return _Person(f"ANNA {chr(65 + mixed % 26)}{name}", f"ZZZ99{number:010d}", 2, born)
    if other == 3:
        return _Person(name, f"E{number:08d}", 3, born)
    body = f"99{number % 10_000:04d}{born:%Y%m%d}{number // 10_000 % 1_000:03d}"
    weights = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
    check = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True)) % 11
    return _Person(name, body + "10X98765432"[check], 0, born)


# --- records ------------------------------------------------------------------------------------------


@dataclass
class _Rows:
    """Rows of one batch. Those that belong to a record give its place among them as ``session_id``."""

    sessions: list[Values] = field(default_factory=list)
    assets: list[Values] = field(default_factory=list)
    attempts: list[Values] = field(default_factory=list)
    consents: list[Values] = field(default_factory=list)
    calls: list[Values] = field(default_factory=list)


@dataclass(frozen=True)
class _Rules:
    """What of a plan each record needs, read once."""

    plan: Plan
    compares: bool
    needs_identity: bool
    reads_card: bool
    span: timedelta | None
    spans: dict[str, timedelta | None]
    expected: dict[str, list[expected_evidence.ExpectedAsset]]
    failures: list[str]
    failure_shares: list[int]

    @classmethod
    def of(cls, plan: Plan) -> _Rules:
        compares = plan.match_source != Plan.MatchSource.LIVENESS_ONLY
        facts = {
            "": True,
            "compares": compares,
            "identity": plan.match_source == Plan.MatchSource.AUTHORITY,
        }
        possible = [(code, share) for code, share, needs in FAILURES if facts[needs]]
        return cls(
            plan=plan,
            compares=compares,
            needs_identity=plan.needs_identity,
            reads_card=plan.identity_entry == Plan.IdentityEntry.OCR,
            span=plan.record_span,
            expected={verdict: _expected(plan, verdict) for verdict in (Verdict.PASSED, Verdict.FAILED)},
            spans={kind.value: plan.span_of(kind.value) for kind in Kind},
            failures=[code for code, _ in possible],
            failure_shares=[share for _, share in possible],
        )


class _Maker:
    """Makes up one record after the other."""

    def __init__(
        self,
        plans: Sequence[Plan],
        noise: random.Random,
        moment: datetime,
        *,
        seed: int,
        people: int,
        files: Files,
    ) -> None:
        self.noise = noise
        self.moment = moment
        self.seed = seed
        self.files = files
        self.regulars = max(people // 12, 1)
        self.rules = [_Rules.of(plan) for plan in plans]
        self.faces = _faces()
        self.seal = _Sealer(VerificationSession)
        self.seal_consent = _Sealer(ConsentRecord)

    def make(self, rows: _Rows, number: int, created_at: datetime, *, with_thumbnail: bool) -> None:
        """Add the rows of the record with that number, of which there is one only."""
        noise = self.noise
        rules = noise.choices(self.rules, PLAN_SHARES)[0]
        public_id = self._id(created_at)
        requested_at = created_at + timedelta(milliseconds=noise.randint(4, 40))
        answered_at = requested_at + timedelta(milliseconds=noise.randint(60, 900))
        token = f"fill{noise.getrandbits(160):040x}"
        values: Values = {
            "public_id": public_id,
            "environment": VerificationSession.Environment.SANDBOX.value,
            "plan_id": rules.plan.pk,
            "application": rules.plan.application,
            "reference": f"{PREFIX}{self.seed}-{number:08d}",
            "purpose": noise.choice(PURPOSES) if noise.random() < 0.95 else "",
            "created_at": created_at,
            "token_requested_at": requested_at,
            "token_answered_at": answered_at,
            **vars(session_deadlines(requested_at, answered_at)),
            "verify_token": self.seal(public_id, "verify_token", token),
            "verify_token_index": blind_index("verify_token", token),
        }
        person = self._person(number) if rules.plan.match_source == Plan.MatchSource.AUTHORITY else None
        if rules.needs_identity and person is not None:
            self._submit(values, person)
        if rules.plan.needs_match_image:
            values["match_image_accepted_at"] = answered_at + timedelta(milliseconds=300)
        place = len(rows.sessions)
        own = _Own(place, public_id, rules, values, person, with_thumbnail)
        self._live_through(rows, own)
        if noise.random() < CONSENT_SHARE:
            rows.consents.append(self._consent(own))
        if self.moment - created_at < CALLS_WITHIN:
            rows.calls += self._calls(own)
        rows.sessions.append(values)

    # --- steps ----------------------------------------------------------------------------------

    def _live_through(self, rows: _Rows, own: _Own) -> None:
        """What became of the record until now."""
        noise, values = self.noise, own.values
        returned_at = values["token_answered_at"] + timedelta(seconds=20 + noise.expovariate(1 / 70))
        decided_at = returned_at + timedelta(seconds=noise.uniform(0.8, 6))
        is_recent = self.moment - values["created_at"] < DAY
        if decided_at >= self.moment or (is_recent and noise.random() < PENDING_SHARE):
            self._stay_pending(own, returned_at)
            return
        verdict = noise.choices(list(VERDICTS), list(VERDICTS.values()))[0]
        if verdict in (Verdict.EXPIRED, Verdict.UNKNOWN):
            if self.moment - values["created_at"] < OVERDUE:
                self._stay_pending(own, self.moment)
            else:
                self._end_undecided(own, verdict)
            return
        verified_at = returned_at - timedelta(seconds=noise.uniform(0.5, 3))
        values |= {
            "verdict": verdict.value,
            "returned_at": returned_at,
            # To the second, as Baidu tells it.
            "verified_at": verified_at.replace(microsecond=0),
            "decided_at": decided_at,
            "threshold": own.rules.plan.applied_threshold,
            "is_demoted": noise.random() < DEMOTED_SHARE if own.rules.plan.is_real_time else None,
            "last_polled_at": decided_at,
            "poll_count": noise.randint(1, 4),
            **{f"{step}_answered_at": decided_at for step in ("getall", "simple", "media", "stat")},
            "stat": {"活体检测": [{"error_code": "0", "count": 1}]},
        }
        if verdict == Verdict.PASSED:
            self._pass(own)
        else:
            self._fail(own)
        self._try(rows, own)
        self._read_card(own)
        span = own.rules.span
        values["retain_until"] = None if span is None else decided_at + span
        collecting = is_recent and verdict == Verdict.PASSED and noise.random() < COLLECTING_SHARE
        self._archive(rows, own, collecting=collecting)
        self._forget(own, rows)

    def _stay_pending(self, own: _Own, returned_at: datetime) -> None:
        noise, values = self.noise, own.values
        age = self.moment - values["created_at"]
        values["poll_count"] = noise.randint(0, 9)
        values["last_polled_at"] = min(values["token_answered_at"] + age / 2, self.moment)
        if age > OVERDUE:
            # The person is done, and Baidu does not answer.
            values |= {"returned_at": returned_at, **self._error(ErrorClass.RETRY, "http_error")}
        elif noise.random() < 0.12:
            self._fail_to_start(own)
        elif returned_at < self.moment and noise.random() < 0.4:
            values["returned_at"] = returned_at
        values |= undecided_deadlines(
            requested_at=values["token_requested_at"],
            media_deadline=values["media_deadline"],
            results_deadline=values["results_deadline"],
            records_video=own.rules.plan.records_video,
            moment=self.moment,
        ).columns()

    def _fail_to_start(self, own: _Own) -> None:
        """Baidu gave no token, or did not take the identity or the picture."""
        values = own.values
        error_class, code, _ = self.noise.choices(TROUBLES, [share for *_, share in TROUBLES])[0]
        values |= {
            **self._error(error_class, code),
            "identity_accepted_at": None,
            "match_image_accepted_at": None,
        }
        if error_class != ErrorClass.CALLER:
            values |= _NO_TOKEN

    def _end_undecided(self, own: _Own, verdict: Verdict) -> None:
        noise, values = self.noise, own.values
        late = timedelta(hours=3, seconds=noise.randint(0, 900))
        decided_at = min(values["created_at"] + late, self.moment)
        values |= {
            "verdict": verdict.value,
            "decided_at": decided_at,
            "archived_at": decided_at,
            "archive_state": ArchiveState.NOT_APPLICABLE.value,
            "poll_count": noise.randint(8, 14),
            "last_polled_at": decided_at,
        }
        if verdict == Verdict.UNKNOWN:
            values |= {
                "returned_at": values["created_at"] + timedelta(minutes=4),
                "archive_state": ArchiveState.LOST.value,
                **self._error(ErrorClass.GONE if noise.random() < 0.7 else ErrorClass.UNKNOWN, "900001"),
            }
        elif noise.random() < 0.15:
            self._fail_to_start(own)
        if own.rules.span is not None:
            values["retain_until"] = decided_at + own.rules.span
        self._forget(own)

    def _pass(self, own: _Own) -> None:
        noise, plan = self.noise, own.rules.plan
        score = None
        if own.rules.compares:
            score = round(plan.threshold + (100 - plan.threshold) * noise.betavariate(3, 1.5), 4)
        own.values |= {"score": score, **self._liveness(own, noise.uniform(0.72, 0.9999))}

    def _fail(self, own: _Own) -> None:
        noise, rules = self.noise, own.rules
        code = noise.choices(rules.failures, rules.failure_shares)[0]
        score = None
        if code == "900002":
            score = round(rules.plan.threshold * min(noise.betavariate(4, 1.3), 0.9999), 4)
        own.values |= {
            "score": score,
            **self._liveness(own, noise.uniform(0.01, 0.4 if code in ("223120", "216500") else 0.99)),
            **self._error(ErrorClass.VERIFICATION_FAILED, code),
            "stat": {"活体检测": [{"error_code": code, "count": 1}]},
        }
        if code == "223131":
            own.values["spoofing_score"] = round(noise.uniform(0.8, 0.999), 4)

    def _liveness(self, own: _Own, value: float) -> Values:
        # Of colourful light Baidu says 0, and 0 of synthetic pictures where it did not look for them.
        colourful = own.rules.plan.liveness == Plan.Liveness.COLORFUL
        tested = self.noise.random() < 0.4
        return {
            "liveness_score": 0.0 if colourful else round(value, 6),
            "spoofing_score": round(self.noise.uniform(0.0001, 0.02), 6) if tested else 0.0,
        }

    def _try(self, rows: _Rows, own: _Own) -> None:
        """The attempts; the last one is that which decided."""
        noise, values, rules = self.noise, own.values, own.rules
        own.attempts = 1 if rules.plan.closes_on_failure else noise.choices((1, 2, 3, 4), (78, 15, 5, 2))[0]
        passed = values["verdict"] == Verdict.PASSED
        for order in range(1, own.attempts + 1):
            last = order == own.attempts
            code = noise.choices(rules.failures, rules.failure_shares)[0]
            if last:
                code = "0" if passed else values["error_code"]
            rows.attempts.append(
                {
                    "session_id": own.place,
                    "order": order,
                    "passed": last and passed,
                    "code": code,
                    "message": MESSAGES.get(code, "") if code != "0" else "success",
                    "verified_at": values["verified_at"] - timedelta(seconds=45 * (own.attempts - order)),
                    "score": values["score"] if last else None,
                    "threshold": values["threshold"],
                    "liveness_score": values["liveness_score"],
                    "spoofing_score": values["spoofing_score"] if last else None,
                    "risk_level": noise.choice("1112"),
                    "is_demoted": values["is_demoted"],
                    "is_charged": passed or code in ("900002", "222351", "223120"),
                    "charge_type": "verify" if rules.compares else "live",
                    "verify_log_id": self._log_id(),
                }
            )

    def _read_card(self, own: _Own) -> None:
        person, values = own.person, own.values
        if not own.rules.reads_card or person is None:
            return
        said = {"name": person.name, "number": person.number}
        # Not everything that is read from a card is read right; the person then corrects it.
        wrong = self.noise.random() < 0.04
        card = {
            **said,
            "name": f"{person.name[:-1]}口" if wrong else person.name,
            "address": "浙江省杭州市样本路 1 号",
            "birthday": f"{person.born:%Y%m%d}",
            "expire_time": "20391231",
        }
        values |= {
            "ocr": self.seal(own.public_id, "ocr", card),
            "confirmed": self.seal(own.public_id, "confirmed", said),
            "certificate_type": person.certificate_type,
            "name_index": blind_index("name", person.name),
            "number_index": blind_index("id_number", person.number),
        }

    # --- files ----------------------------------------------------------------------------------

    def _archive(self, rows: _Rows, own: _Own, *, collecting: bool) -> None:
        """What became of the files, whether or not their rows are wanted."""
        noise, values = self.noise, own.values
        passed = values["verdict"] == Verdict.PASSED
        luck = noise.random()
        lost = passed and not collecting and luck < LOST_SHARE
        partial = passed and not collecting and not lost and luck < LOST_SHARE + PARTIAL_SHARE
        expected = self._expected(own)
        archived_at = values["decided_at"] + timedelta(seconds=noise.uniform(1.5, 9))
        collecting = collecting or archived_at >= self.moment
        state = ArchiveState.COMPLETE
        if collecting:
            state = ArchiveState.COLLECTING
            if noise.random() < 0.3:
                values |= self._error(ErrorClass.RETRY, "http_error")
        elif lost or partial:
            state = ArchiveState.LOST if lost else ArchiveState.PARTIAL
            archived_at = min(values["media_give_up_at"], self.moment)
            if noise.random() < 0.5:
                values |= {**self._error(ErrorClass.RETRY, ""), "error_class": UNSAFE_MEDIA}
        elif not passed and not any(item.state == State.WANTED for item in expected):
            state = ArchiveState.NOT_APPLICABLE
        values |= {"archive_state": state.value, "archived_at": None if collecting else archived_at}
        # The video goes before the face does.
        perishable = [n for n, item in enumerate(expected) if item.state == State.WANTED and _is_main(item)]
        missing = set(range(len(expected))) if lost else set(perishable[-1:]) if partial else set()
        has_face = len(perishable) > 1 and noise.random() < 0.5
        wanted = []
        for n, item in enumerate(expected):
            is_told = self.files == "all" or (self.files == "main" and (not passed or _is_main(item)))
            if not (is_told or collecting):
                continue
            row = self._file(
                own,
                item,
                archived_at,
                is_lost=item.state == State.WANTED and n in missing,
                is_wanted=collecting and not (has_face and item.kind == Kind.FACE),
            )
            if row["state"] == State.WANTED:
                wanted.append(row["deadline"])
            if is_told:
                rows.assets.append(row)
        if collecting:
            values |= PendingDeadlines.of([*wanted, values["results_deadline"]], self.moment).columns()

    def _expected(self, own: _Own) -> list[expected_evidence.ExpectedAsset]:
        verdict = own.values["verdict"]
        expected = [*own.rules.expected[verdict]]
        if verdict == Verdict.PASSED:
            expected += map(_attempt_face, range(1, own.attempts + 1))
        elif self.noise.random() < 0.6:
            expected.append(_attempt_face(1))
        return expected

    def _file(
        self,
        own: _Own,
        item: expected_evidence.ExpectedAsset,
        archived_at: datetime,
        *,
        is_lost: bool,
        is_wanted: bool,
    ) -> Values:
        noise, values = self.noise, own.values
        is_media = item.kind in MediaAsset.MEDIA_KINDS
        row: Values = {
            "session_id": own.place,
            "public_id": self._id(values["decided_at"]),
            "attempt_order": item.attempt_order,
            "kind": str(item.kind),
            "position": item.position,
            "state": str(item.state),
            "reason": item.reason,
            "source": str(item.source),
            "created_at": values["decided_at"],
        }
        if item.source != Source.UPLOAD:
            row["deadline"] = values["media_deadline" if is_media else "results_deadline"]
            row["give_up_at"] = values["media_give_up_at" if is_media else "results_give_up_at"]
        if item.state == State.NOT_PROVIDED:
            return row
        if is_lost:
            return {
                **row,
                "state": State.LOST.value,
                "error_class": "url_expired",
                "tries": noise.randint(3, 9),
            }
        if is_wanted and item.source != Source.UPLOAD:
            return {**row, "state": State.WANTED.value, "tries": noise.randint(0, 3)}
        if is_media and values["is_demoted"] and item.kind == Kind.PROCESS_VIDEO:
            return {**row, "state": State.NOT_PROVIDED.value, "reason": "demoted"}
        key = new_file_key()
        row |= {
            "state": State.STORED.value,
            "sha256": f"{noise.getrandbits(256):064x}",
            "archived_at": min(archived_at, self.moment),
            "stored_name": f"{PREFIX}{row['public_id'].hex}",
            "wrapped_key": wrap_file_key(key, row["public_id"]),
        }
        if item.kind in MediaAsset.VIDEO_KINDS:
            row |= {
                "content_type": "video/mp4",
                "size": noise.randint(900_000, 6_000_000),
                "width": 480,
                "height": 640,
                "duration": round(noise.uniform(3, 12), 2),
            }
        else:
            row |= {
                "content_type": "image/jpeg",
                "size": noise.randint(40_000, 260_000),
                "width": 480,
                "height": 640,
            }
        if own.with_thumbnail and item.kind in (Kind.FACE, Kind.ATTEMPT_FACE):
            own.with_thumbnail = False
            row["thumbnail"] = seal_thumbnail(noise.choice(self.faces), key, row["public_id"])
        span = own.rules.spans[item.kind]
        if span is not None:
            row["retain_until"] = values["decided_at"] + span
            if row["retain_until"] < self.moment:
                row |= _ERASED_FILE | {"reason": "retention"}
        return row

    def _forget(self, own: _Own, rows: _Rows | None = None) -> None:
        """What retention or an erasure has taken away since."""
        values = own.values
        over_at = values.get("retain_until")
        asked_at = None
        if self.noise.random() < ERASED_SHARE:
            asked_at = values["decided_at"] + timedelta(days=self.noise.uniform(2, 200))
        ends = [at for at in (over_at, asked_at) if at is not None and at < self.moment]
        if not ends or values["archive_state"] == ArchiveState.COLLECTING:
            return
        own.erased_at = min(ends)
        why = "erased" if own.erased_at == asked_at else "retention"
        values |= _ERASED | {"erased_at": own.erased_at}
        if rows is None:
            return
        for row in reversed(rows.assets):
            if row["session_id"] != own.place:
                break
            if row["state"] in (State.STORED, State.WANTED):
                row |= _ERASED_FILE | {"reason": why}
        for row in reversed(rows.attempts):
            if row["session_id"] != own.place:
                break
            row["message"] = ""

    # --- what stands beside ---------------------------------------------------------------------

    def _consent(self, own: _Own) -> Values:
        noise, created_at = self.noise, own.values["created_at"]
        public_id = self._id(created_at)
        row: Values = {
            "public_id": public_id,
            "session_id": own.public_id,
            "recorded_at": created_at,
            "given_at": created_at - timedelta(seconds=noise.randint(5, 90)),
            "purpose": own.values["purpose"],
            "notice_version": f"v{1 + own.values['created_at'].year % 10}.{noise.randint(0, 2)}",
            "channel": noise.choice(CHANNELS),
            "is_separate": True,
            "names_recipient": True,
            "alternative_offered": noise.random() < 0.9,
            "reference": self.seal_consent(
                public_id, "reference", f"{PREFIX}consent-{noise.getrandbits(32):08x}"
            ),
        }
        if own.person is not None and own.person.is_child:
            row["guardian_reference"] = self.seal_consent(
                public_id, "guardian_reference", f"{PREFIX}guardian"
            )
        if own.erased_at is not None and noise.random() < 0.02:
            row |= {"withdrawn_at": own.erased_at, "withdrawn_by": "sample"}
        return row

    def _calls(self, own: _Own) -> Iterator[Values]:
        values = own.values
        plan = own.rules.plan
        answered_at = values["token_answered_at"]
        asked = [("verify_token_generate", answered_at or values["created_at"])]
        if plan.needs_identity and answered_at:
            asked.append(("idcard_submit", answered_at + timedelta(milliseconds=250)))
        if plan.needs_match_image and answered_at:
            asked.append(("upload_match_image", answered_at + timedelta(milliseconds=400)))
        decided_at = values.get("decided_at")
        if decided_at and answered_at:
            names = ["result_detail"]
            if values["verdict"] in (Verdict.PASSED, Verdict.FAILED):
                names += ["result_getall", "result_simple", "result_media_query", "result_stat"]
            asked += [(name, decided_at + n * timedelta(seconds=0.3)) for n, name in enumerate(names)]
        for place, (endpoint, at) in enumerate(asked):
            last = place == len(asked) - 1
            error = values.get("error_class", "") if last or endpoint == "result_detail" else ""
            yield {
                "session_id": own.place,
                "environment": values["environment"],
                "application": values["application"],
                "endpoint": endpoint,
                "outcome": error or UpstreamCall.OK,
                "code": values.get("error_code", "") if error else "",
                "log_id": self._log_id(),
                "http_status": 200,
                "latency": round(min(self.noise.lognormvariate(-2.0, 0.6), 9.0), 3),
                "at": min(at, self.moment),
            }

    # --- small things ---------------------------------------------------------------------------

    def _id(self, at: datetime) -> UUID:
        """An identifier as any row has it, in the order of *at*."""
        value = (int(at.timestamp() * 1000) << 80) | (0x7 << 76) | (0b10 << 62)
        return UUID(int=value | (self.noise.getrandbits(12) << 64) | self.noise.getrandbits(62))

    def _person(self, number: int) -> _Person:
        noise = self.noise
        if noise.random() < REPEATED_SHARE:
            # A few come again and again.
            return _person(int(noise.random() ** 2 * self.regulars), self.seed)
        return _person(self.regulars + number, self.seed)

    def _submit(self, values: Values, person: _Person) -> None:
        public_id = values["public_id"]
        values |= {
            "identity_name": self.seal(public_id, "identity_name", person.name),
            "identity_number": self.seal(public_id, "identity_number", person.number),
            "certificate_type": person.certificate_type,
            "name_index": blind_index("name", person.name),
            "number_index": blind_index("id_number", person.number),
            "identity_accepted_at": values["token_answered_at"] + timedelta(milliseconds=250),
        }

    def _error(self, error_class: ErrorClass, code: str) -> Values:
        return {
            "error_class": error_class.value,
            "error_code": code,
            "error_message": MESSAGES.get(code, ""),
            "error_log_id": self._log_id() if code else "",
        }

    def _log_id(self) -> str:
        return str(1_900_000_000_000_000_000 + self.noise.randrange(100_000_000_000_000_000))


@dataclass
class _Own:
    """One record while it is made."""

    place: int
    public_id: UUID
    rules: _Rules
    values: Values
    person: _Person | None
    with_thumbnail: bool
    attempts: int = 0
    erased_at: datetime | None = None


#: What a record has not for which Baidu gave no token.
_NO_TOKEN: Values = dict.fromkeys(
    (
        *("verify_token", "verify_token_index", "token_requested_at", "token_answered_at", "expires_at"),
        *("media_deadline", "results_deadline", "media_give_up_at", "results_give_up_at"),
    )
)
#: What an erased record, and a file of one, no longer says.
_ERASED: Values = {
    **dict.fromkeys(("verify_token", "verify_token_index", "identity_name", "identity_number")),
    **dict.fromkeys(("ocr", "confirmed", "retain_until")),
    **dict.fromkeys(("name_index", "number_index", "error_message"), ""),
}
_ERASED_FILE: Values = {
    "state": State.ERASED.value,
    "sha256": "",
    "stored_name": "",
    "wrapped_key": None,
    "thumbnail": None,
    "retain_until": None,
}
_MAIN = frozenset({Kind.FACE, Kind.PROCESS_VIDEO, Kind.VIDEO, Kind.MATCH_IMAGE})


def _expected(plan: Plan, verdict: str) -> list[expected_evidence.ExpectedAsset]:
    """What a record of that verdict has, but for the faces of its attempts."""
    reads_card = plan.identity_entry == Plan.IdentityEntry.OCR
    expected = expected_evidence.expected_assets(
        plan, verdict, with_id_front=reads_card, with_id_back=reads_card
    )
    if plan.needs_match_image:
        expected.append(expected_evidence.ExpectedAsset(Kind.MATCH_IMAGE, Source.UPLOAD, state=State.STORED))
    return expected


@lru_cache
def _attempt_face(order: int) -> expected_evidence.ExpectedAsset:
    return expected_evidence.ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=order)


def _is_main(item: expected_evidence.ExpectedAsset) -> bool:
    return item.kind in _MAIN


def _faces() -> list[bytes]:
    """A few drawn faces, as small and blurred as those of people are shown."""
    found = []
    for tone in ("#e8c4a0", "#d9a877", "#c68e5f", "#f0d3b5", "#a9744a", "#8a5a38"):
        for ground in ("#7799bb", "#aabbaa", "#ccccdd"):
            image = Image.new("RGB", (96, 128), ground)
            draw = ImageDraw.Draw(image)
            draw.ellipse((10, 100, 86, 170), fill="#334455")
            draw.ellipse((22, 14, 74, 60), fill="#221a16")
            draw.ellipse((24, 22, 72, 96), fill=tone)
            draw.ellipse((36, 50, 42, 56), fill="#221a16")
            draw.ellipse((54, 50, 60, 56), fill="#221a16")
            draw.arc((38, 62, 58, 82), 20, 160, fill="#883333", width=2)
            content = io.BytesIO()
            image.save(content, "JPEG")
            found.append(make_thumbnail(content.getvalue()))
    return [face for face in found if face is not None]


# --- writing ------------------------------------------------------------------------------------------


class _Sealer:
    """Values for the encrypted columns of a model."""

    def __init__(self, model: type[models.Model]) -> None:
        self._fields = {
            item.name: item for item in model._meta.concrete_fields if isinstance(item, EncryptedField)
        }

    def __call__(self, row: UUID, name: str, plain: Any) -> bytes:
        return self._fields[name].seal(row, plain).token


def _write(tables: Sequence[_Table], rows: _Rows) -> None:
    """One batch, all of it or nothing."""
    sessions, *others = tables
    with transaction.atomic(using=sessions.using):
        sessions.insert(rows.sessions)
        ids = [values["public_id"] for values in rows.sessions]
        keys = dict(VerificationSession.objects.filter(public_id__in=ids).values_list("public_id", "pk"))
        for values in (*rows.assets, *rows.attempts, *rows.calls):
            values["session_id"] = keys[ids[values["session_id"]]]
        for table, own in zip(others, (rows.assets, rows.attempts, rows.consents, rows.calls), strict=True):
            table.insert(own)


class _Table:
    """Adds rows to the table of a model, as values by column's attribute; the database gives the keys."""

    def __init__(self, model: type[models.Model]) -> None:
        self.using = router.db_for_write(model) or DEFAULT_DB_ALIAS
        self._connection: Any = connections[self.using]
        self._fields = [item for item in model._meta.concrete_fields if not item.primary_key]
        self._table = self._connection.ops.quote_name(model._meta.db_table)
        self._columns = ", ".join(self._connection.ops.quote_name(str(item.column)) for item in self._fields)
        self._preparers = {item.attname: self._preparer(item) for item in self._fields}
        self._blank = {item.attname: self._default(item) for item in self._fields}

    def insert(self, rows: Sequence[Values]) -> None:
        """Add them in their order."""
        if not rows:
            return
        with self._connection.cursor() as cursor:
            if self._connection.vendor == "postgresql" and hasattr(cursor, "copy"):
                with cursor.copy(f"COPY {self._table} ({self._columns}) FROM STDIN") as copy:
                    for values in rows:
                        copy.write_row(self._prepared(values))
                return
            places = ", ".join(["%s"] * len(self._fields))
            cursor.executemany(
                f"INSERT INTO {self._table} ({self._columns}) VALUES ({places})",  # noqa: S608  (names of ours)
                [self._prepared(values) for values in rows],
            )

    def analyze(self) -> None:
        """Let the database see what there is now: lists of many rows are planned by that."""
        if self._connection.vendor == "mysql":
            # Which sees by itself, and would end a transaction for that.
            return
        with self._connection.cursor() as cursor:
            cursor.execute(f"ANALYZE {self._table}")

    def _prepared(self, values: Values) -> list[Any]:
        row = self._blank | values
        if len(row) != len(self._fields):
            raise KeyError(*(set(row) - set(self._blank)))
        return [
            value if value is None or prepare is None else prepare(value)
            for (name, prepare), value in zip(self._preparers.items(), row.values(), strict=True)
        ]

    def _preparer(self, item: Any) -> Callable[[Any], Any] | None:
        """How a value gets the form that the database's driver takes; None: as it is."""
        if isinstance(item, models.JSONField):
            return json.dumps
        if self._connection.vendor == "postgresql":
            return None
        if isinstance(item, models.DateTimeField):
            return self._connection.ops.adapt_datetimefield_value
        if isinstance(item, models.UUIDField):
            return lambda value: item.get_db_prep_save(value, self._connection)
        return None

    def _default(self, item: Any) -> Any:
        if item.has_default():
            return item.default() if callable(item.default) else item.default
        return None if item.null else item.get_default()
