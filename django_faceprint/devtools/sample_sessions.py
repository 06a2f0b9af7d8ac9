"""Made-up sessions from start to end: verdict, attempts, identity, consent, calls to Baidu and erasure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from django_faceprint.base.deadlines import session_deadlines, undecided_deadlines
from django_faceprint.client import ErrorClass
from django_faceprint.models import ConsentRecord, Plan, UpstreamCall, VerificationSession
from django_faceprint.privacy.blind_index import blind_index

from .bulk_insert import Sealer
from .sample_drafts import (
    LOW_SCORE_CODE,
    MESSAGES,
    PLAN_SHARES,
    PREFIX,
    Draft,
    PlanFacts,
    Rng,
    Rows,
    Values,
    Verdict,
)
from .sample_files import ERASED_FILE, ArchiveState, FileMaker, Files, State
from .sample_people import Person, person

DAY = timedelta(days=1)
#: Records younger than this have their calls to Baidu on record.
CALLS_WITHIN = timedelta(days=7)
#: A record that is undecided for longer is one about which Baidu does not answer.
OVERDUE = timedelta(hours=3)

#: Weights of the verdicts of records that are old enough to have one.
VERDICTS = {Verdict.PASSED: 790, Verdict.FAILED: 118, Verdict.EXPIRED: 86, Verdict.UNKNOWN: 6}
#: Shares of the last day's records: still undecided, and with files still to be fetched.
PENDING_SHARE, COLLECTING_SHARE = 0.008, 0.012
REPEATED_SHARE = 0.25
ERASED_SHARE = 0.004
DEMOTED_SHARE = 0.03
CONSENT_SHARE = 0.85

PURPOSES = ("开户", "登录", "找回密码", "提额", "签约", "补卡", "提现", "换绑手机")
CHANNELS = ("app", "mini-program", "web", "counter")

#: Errors of a session before its end: class, code, share.
TROUBLES = (
    (ErrorClass.RETRY, "http_error", 5),
    (ErrorClass.RETRY, "", 3),
    (ErrorClass.SLOW_DOWN, "18", 3),
    (ErrorClass.CONFIGURATION, "6", 2),
    (ErrorClass.CONFIGURATION, "283435", 1),
    (ErrorClass.CALLER, "222022", 4),
    (ErrorClass.REAUTHENTICATE, "110", 1),
)

#: The columns that are empty where Baidu gave no token.
NO_TOKEN: Values = dict.fromkeys(
    (
        *("verify_token", "verify_token_index", "token_requested_at", "token_answered_at", "expires_at"),
        *("media_deadline", "results_deadline", "media_give_up_at", "results_give_up_at"),
    )
)
#: The columns that an erasure empties.
ERASED: Values = {
    **dict.fromkeys(("verify_token", "verify_token_index", "identity_name", "identity_number")),
    **dict.fromkeys(("ocr", "confirmed", "retain_until")),
    **dict.fromkeys(("name_index", "number_index", "error_message"), ""),
}


class SessionMaker:
    """Makes up one record after the other, as they stand at *moment*.

    *people* is the number of records there will be; a part of them are of people who come repeatedly.
    """

    def __init__(
        self, plans: Sequence[Plan], rng: Rng, moment: datetime, *, seed: int, people: int, files: Files
    ) -> None:
        self._rng = rng
        self._moment = moment
        self._seed = seed
        self._regulars = max(people // 12, 1)
        self._facts = [PlanFacts.of(plan) for plan in plans]
        self._file_maker = FileMaker(rng, moment, files)
        self._seal = Sealer(VerificationSession)
        self._seal_consent = Sealer(ConsentRecord)

    def add(self, rows: Rows, number: int, created_at: datetime, *, with_thumbnail: bool) -> None:
        """Add the rows of the record with that number, which is unique."""
        draft = self._start(len(rows.sessions), number, created_at, with_thumbnail)
        self._simulate(rows, draft)
        if self._rng.chance(CONSENT_SHARE):
            rows.consents.append(self._consent(draft))
        if self._moment - created_at < CALLS_WITHIN:
            rows.calls += self._calls(draft)
        rows.sessions.append(draft.values)

    def _start(self, index: int, number: int, created_at: datetime, with_thumbnail: bool) -> Draft:
        rng = self._rng
        facts = rng.choices(self._facts, PLAN_SHARES)[0]
        plan = facts.plan
        public_id = rng.id_at(created_at)
        requested_at = created_at + timedelta(milliseconds=rng.randint(4, 40))
        answered_at = requested_at + timedelta(milliseconds=rng.randint(60, 900))
        token = f"fill{rng.getrandbits(160):040x}"
        values: Values = {
            "public_id": public_id,
            "environment": VerificationSession.Environment.SANDBOX.value,
            "plan_id": plan.pk,
            "application": plan.application,
            "reference": f"{PREFIX}{self._seed}-{number:08d}",
            "purpose": rng.choice(PURPOSES) if rng.chance(0.95) else "",
            "created_at": created_at,
            "token_requested_at": requested_at,
            "token_answered_at": answered_at,
            **vars(session_deadlines(requested_at, answered_at)),
            "verify_token": self._seal(public_id, "verify_token", token),
            "verify_token_index": blind_index("verify_token", token),
        }
        who = self._person(number) if plan.match_source == Plan.MatchSource.AUTHORITY else None
        if plan.needs_identity and who is not None:
            values |= {
                "identity_name": self._seal(public_id, "identity_name", who.name),
                "identity_number": self._seal(public_id, "identity_number", who.number),
                "identity_accepted_at": answered_at + timedelta(milliseconds=250),
                **_indexes(who),
            }
        if plan.needs_match_image:
            values["match_image_accepted_at"] = answered_at + timedelta(milliseconds=300)
        return Draft(index, public_id, facts, values, who, with_thumbnail)

    def _person(self, number: int) -> Person:
        if self._rng.chance(REPEATED_SHARE):
            # A few of the regulars come most often.
            return person(int(self._rng.random() ** 2 * self._regulars), self._seed)
        return person(self._regulars + number, self._seed)

    def _simulate(self, rows: Rows, draft: Draft) -> None:
        """Bring the record from its start to the present."""
        rng, values = self._rng, draft.values
        age = self._moment - values["created_at"]
        returned_at = values["token_answered_at"] + timedelta(seconds=20 + rng.expovariate(1 / 70))
        decided_at = returned_at + timedelta(seconds=rng.uniform(0.8, 6))
        if decided_at >= self._moment or (age < DAY and rng.chance(PENDING_SHARE)):
            self._stay_pending(draft, returned_at)
            return
        verdict = rng.choices(list(VERDICTS), list(VERDICTS.values()))[0]
        if verdict in (Verdict.PASSED, Verdict.FAILED):
            self._decide(rows, draft, verdict, returned_at, decided_at)
            collecting = age < DAY and draft.passed and rng.chance(COLLECTING_SHARE)
            self._file_maker.archive(rows, draft, collecting=collecting)
            self._erase(rows, draft)
        elif age < OVERDUE:
            self._stay_pending(draft, self._moment)
        else:
            self._end_undecided(draft, verdict)
            self._erase(rows, draft)

    def _stay_pending(self, draft: Draft, returned_at: datetime) -> None:
        rng, values = self._rng, draft.values
        age = self._moment - values["created_at"]
        values["poll_count"] = rng.randint(0, 9)
        values["last_polled_at"] = min(values["token_answered_at"] + age / 2, self._moment)
        if age > OVERDUE:
            # The person is done, and Baidu does not answer.
            values |= {"returned_at": returned_at, **rng.error(ErrorClass.RETRY, "http_error")}
        elif rng.chance(0.12):
            self._fail_to_start(draft)
        elif returned_at < self._moment and rng.chance(0.4):
            values["returned_at"] = returned_at
        values |= undecided_deadlines(
            requested_at=values["token_requested_at"],
            media_deadline=values["media_deadline"],
            results_deadline=values["results_deadline"],
            records_video=draft.plan.records_video,
            moment=self._moment,
        ).columns()

    def _fail_to_start(self, draft: Draft) -> None:
        """Baidu gave no token, or did not take the identity or the picture."""
        error_class, code, _ = self._rng.choices(TROUBLES, [share for *_, share in TROUBLES])[0]
        draft.values |= {
            **self._rng.error(error_class, code),
            "identity_accepted_at": None,
            "match_image_accepted_at": None,
        }
        if error_class != ErrorClass.CALLER:
            draft.values |= NO_TOKEN

    def _end_undecided(self, draft: Draft, verdict: Verdict) -> None:
        rng, values = self._rng, draft.values
        ended_at = values["created_at"] + timedelta(hours=3, seconds=rng.randint(0, 900))
        decided_at = min(ended_at, self._moment)
        values |= {
            "verdict": verdict.value,
            "decided_at": decided_at,
            "archived_at": decided_at,
            "archive_state": ArchiveState.NOT_APPLICABLE.value,
            "poll_count": rng.randint(8, 14),
            "last_polled_at": decided_at,
        }
        if verdict == Verdict.UNKNOWN:
            values |= {
                "returned_at": values["created_at"] + timedelta(minutes=4),
                "archive_state": ArchiveState.LOST.value,
                **rng.error(ErrorClass.GONE if rng.chance(0.7) else ErrorClass.UNKNOWN, "900001"),
            }
        elif rng.chance(0.15):
            self._fail_to_start(draft)
        if draft.facts.retention is not None:
            values["retain_until"] = decided_at + draft.facts.retention

    def _decide(
        self, rows: Rows, draft: Draft, verdict: Verdict, returned_at: datetime, decided_at: datetime
    ) -> None:
        """Set the verdict, with attempts and the ID card."""
        rng, plan, retention = self._rng, draft.plan, draft.facts.retention
        verified_at = returned_at - timedelta(seconds=rng.uniform(0.5, 3))
        draft.values |= {
            "verdict": verdict.value,
            "returned_at": returned_at,
            # To the second, as in Baidu's answers.
            "verified_at": verified_at.replace(microsecond=0),
            "decided_at": decided_at,
            "threshold": plan.applied_threshold,
            "is_demoted": rng.chance(DEMOTED_SHARE) if plan.is_real_time else None,
            "last_polled_at": decided_at,
            "poll_count": rng.randint(1, 4),
            **{f"{step}_answered_at": decided_at for step in ("getall", "simple", "media", "stat")},
            "stat": {"活体检测": [{"error_code": "0", "count": 1}]},
            "retain_until": None if retention is None else decided_at + retention,
        }
        draft.values |= self._scores_of_pass(draft) if verdict == Verdict.PASSED else self._failure(draft)
        self._add_attempts(rows, draft)
        self._read_card(draft)

    def _scores_of_pass(self, draft: Draft) -> Values:
        rng, plan = self._rng, draft.plan
        score = None
        if draft.facts.compares:
            score = round(plan.threshold + (100 - plan.threshold) * rng.betavariate(3, 1.5), 4)
        return {"score": score, **self._liveness(plan, rng.uniform(0.72, 0.9999))}

    def _failure(self, draft: Draft) -> Values:
        rng = self._rng
        code = draft.facts.failure(rng)
        score = None
        if code == LOW_SCORE_CODE:
            score = round(draft.plan.threshold * min(rng.betavariate(4, 1.3), 0.9999), 4)
        values = {
            "score": score,
            **self._liveness(draft.plan, rng.uniform(0.01, 0.4 if code in ("223120", "216500") else 0.99)),
            **rng.error(ErrorClass.VERIFICATION_FAILED, code),
            "stat": {"活体检测": [{"error_code": code, "count": 1}]},
        }
        if code == "223131":
            values["spoofing_score"] = round(rng.uniform(0.8, 0.999), 4)
        return values

    def _liveness(self, plan: Plan, score: float) -> Values:
        # Baidu's score is 0 for colourful light, and for synthetic pictures where it did not check for them.
        colourful = plan.liveness == Plan.Liveness.COLORFUL
        checked = self._rng.chance(0.4)
        return {
            "liveness_score": 0.0 if colourful else round(score, 6),
            "spoofing_score": round(self._rng.uniform(0.0001, 0.02), 6) if checked else 0.0,
        }

    def _add_attempts(self, rows: Rows, draft: Draft) -> None:
        """The attempts; the last one decided."""
        rng, values = self._rng, draft.values
        draft.attempts = 1 if draft.plan.closes_on_failure else rng.choices((1, 2, 3, 4), (78, 15, 5, 2))[0]
        for order in range(1, draft.attempts + 1):
            last = order == draft.attempts
            code = draft.facts.failure(rng)
            if last:
                code = "0" if draft.passed else values["error_code"]
            rows.attempts.append(
                {
                    "session_id": draft.index,
                    "order": order,
                    "passed": last and draft.passed,
                    "code": code,
                    "message": MESSAGES.get(code, "") if code != "0" else "success",
                    "verified_at": values["verified_at"] - timedelta(seconds=45 * (draft.attempts - order)),
                    "score": values["score"] if last else None,
                    "threshold": values["threshold"],
                    "liveness_score": values["liveness_score"],
                    "spoofing_score": values["spoofing_score"] if last else None,
                    "risk_level": rng.choice("1112"),
                    "is_demoted": values["is_demoted"],
                    "is_charged": draft.passed or code in (LOW_SCORE_CODE, "222351", "223120"),
                    "charge_type": "verify" if draft.facts.compares else "live",
                    "verify_log_id": rng.log_id(),
                }
            )

    def _read_card(self, draft: Draft) -> None:
        who = draft.person
        if who is None or draft.plan.identity_entry != Plan.IdentityEntry.OCR:
            return
        confirmed = {"name": who.name, "number": who.number}
        # OCR makes mistakes, which the person then corrects.
        misread = self._rng.chance(0.04)
        card = {
            **confirmed,
            "name": f"{who.name[:-1]}口" if misread else who.name,
            "address": "浙江省杭州市样本路 1 号",
            "birthday": f"{who.born:%Y%m%d}",
            "expire_time": "20391231",
        }
        draft.values |= {
            "ocr": self._seal(draft.public_id, "ocr", card),
            "confirmed": self._seal(draft.public_id, "confirmed", confirmed),
            **_indexes(who),
        }

    def _erase(self, rows: Rows, draft: Draft) -> None:
        """Erase the record where its retention is over, or where the person asked for it."""
        values = draft.values
        over_at = values.get("retain_until")
        requested_at = None
        if self._rng.chance(ERASED_SHARE):
            requested_at = values["decided_at"] + timedelta(days=self._rng.uniform(2, 200))
        ends = [at for at in (over_at, requested_at) if at is not None and at < self._moment]
        if not ends or values["archive_state"] == ArchiveState.COLLECTING:
            return
        draft.erased_at = min(ends)
        reason = "erased" if draft.erased_at == requested_at else "retention"
        values |= ERASED | {"erased_at": draft.erased_at}
        for row in _rows_of(draft, rows.assets):
            if row["state"] in (State.STORED, State.WANTED):
                row |= ERASED_FILE | {"reason": reason}
        for row in _rows_of(draft, rows.attempts):
            row["message"] = ""

    def _consent(self, draft: Draft) -> Values:
        rng, created_at = self._rng, draft.values["created_at"]
        public_id = rng.id_at(created_at)
        row: Values = {
            "public_id": public_id,
            "session_id": draft.public_id,
            "recorded_at": created_at,
            "given_at": created_at - timedelta(seconds=rng.randint(5, 90)),
            "purpose": draft.values["purpose"],
            "notice_version": f"v{1 + created_at.year % 10}.{rng.randint(0, 2)}",
            "channel": rng.choice(CHANNELS),
            "is_separate": True,
            "names_recipient": True,
            "alternative_offered": rng.chance(0.9),
            "reference": self._seal_consent(
                public_id, "reference", f"{PREFIX}consent-{rng.getrandbits(32):08x}"
            ),
        }
        if draft.person is not None and draft.person.is_child:
            guardian = f"{PREFIX}guardian"
            row["guardian_reference"] = self._seal_consent(public_id, "guardian_reference", guardian)
        if draft.erased_at is not None and rng.chance(0.02):
            row |= {"withdrawn_at": draft.erased_at, "withdrawn_by": "sample"}
        return row

    def _calls(self, draft: Draft) -> Iterator[Values]:
        values = draft.values
        calls = _call_times(draft)
        for endpoint, at in calls:
            failed = endpoint == "result_detail" or endpoint == calls[-1][0]
            error = values.get("error_class", "") if failed else ""
            yield {
                "session_id": draft.index,
                "environment": values["environment"],
                "application": values["application"],
                "endpoint": endpoint,
                "outcome": error or UpstreamCall.OK,
                "code": values.get("error_code", "") if error else "",
                "log_id": self._rng.log_id(),
                "http_status": 200,
                "latency": round(min(self._rng.lognormvariate(-2.0, 0.6), 9.0), 3),
                "at": min(at, self._moment),
            }


def _indexes(who: Person) -> Values:
    return {
        "certificate_type": who.certificate_type,
        "name_index": blind_index("name", who.name),
        "number_index": blind_index("id_number", who.number),
    }


def _rows_of(draft: Draft, rows: list[Values]) -> Iterator[Values]:
    """The draft's rows, which are the latest."""
    for row in reversed(rows):
        if row["session_id"] != draft.index:
            break
        yield row


def _call_times(draft: Draft) -> list[tuple[str, datetime]]:
    """The calls to Baidu for a record, with their times."""
    values = draft.values
    answered_at, decided_at = values["token_answered_at"], values.get("decided_at")
    calls = [("verify_token_generate", answered_at or values["created_at"])]
    if not answered_at:
        return calls
    if draft.plan.needs_identity:
        calls.append(("idcard_submit", answered_at + timedelta(milliseconds=250)))
    if draft.plan.needs_match_image:
        calls.append(("upload_match_image", answered_at + timedelta(milliseconds=400)))
    if decided_at:
        names = ["result_detail"]
        if values["verdict"] in (Verdict.PASSED, Verdict.FAILED):
            names += ["result_getall", "result_simple", "result_media_query", "result_stat"]
        calls += [(name, decided_at + n * timedelta(seconds=0.3)) for n, name in enumerate(names)]
    return calls
