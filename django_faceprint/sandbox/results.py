"""The five interfaces below ``result/`` (API reference 3.4 to 3.8).

Every method raises :class:`~django_faceprint.sandbox.errors.ServiceError` where Baidu answers with an error.
The caller holds the store's lock.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from .attempts import LIVENESS_CODES
from .clock import BEIJING
from .errors import ServiceError
from .media import SAMPLE_NAME, SAMPLE_NUMBER, Picture
from .object_storage import ObjectStorage
from .sessions import Attempt, Session
from .store import Store

CHINESE_STAT_KEYS = {
    "OCR": "身份证识别",
    "Sessioncode": "随机校验码",
    "verify": "人脸实名认证",
    "VideoLiveness": "h5活体视频分析",
    "Livenesscolorful": "炫瞳活体检测",
}
CHARGE_TYPES = {"authoritative": "verify", "own_library": "match", "liveness_only": "live"}


@dataclass
class Answer:
    """A successful answer: its ``result``, fields beside it, and what to do once it was delivered."""

    result: object = None
    beside: dict[str, Any] = field(default_factory=dict)
    on_completed: list[Callable[[], None]] = field(default_factory=list)


class Results:
    """Answers about sessions from the store; recordings and faces as URLs of the object storage."""

    def __init__(self, store: Store, storage: ObjectStorage) -> None:
        self._store = store
        self._storage = storage

    def simple(self, session: Session) -> Answer:
        """result/simple: the URL of the face."""
        self._require_pass(session)
        return Answer({"image": self._storage.simple_image_url(session)})

    def detail(self, session: Session) -> Answer:
        """result/detail: scores, identity, and the ID card of an OCR plan."""
        attempt = self._require_pass(session)
        scores = {
            "score": _score(session, attempt.score),
            "liveness_score": _score(session, attempt.liveness_score),
            "spoofing": _score(session, attempt.spoofing or 0.0),
        }
        result: dict[str, Any] = {"verify_result": scores}
        answer = Answer(result)
        if session.plan.uses_ocr:
            result |= self._card(session, answer)
        identity = attempt.identity
        result["idcard_confirm"] = identity and {"name": identity.name, "idcard_number": identity.number}
        if attempt.is_demote is not None:
            places = {"result": result, "verify_result": scores, "top": answer.beside}
            places[self._store.switches.demote_place]["is_demote"] = attempt.is_demote
        return answer

    def stat(self, session: Session) -> Answer:
        """result/stat: the codes of all backend calls, counted by kind of call."""
        if not session.attempts:
            if self._store.switches.before_attempt == "empty":
                return Answer({})
            self._require_attempt(session)
        calls = Counter(call for attempt in session.attempts for call in _backend_calls(session, attempt))
        names = CHINESE_STAT_KEYS if self._store.switches.stat_keys == "chinese" else {}
        result: dict[str, list[dict[str, int]]] = {}
        for (kind, code), count in calls.items():
            result.setdefault(names.get(kind, kind), []).append({"error_code": code, "count": count})
        return Answer(result)

    def media_query(self, session: Session) -> Answer:
        """result/media/query: the URLs of the recordings of the last attempt."""
        attempt = self._require_attempt(session)
        switches = self._store.switches
        if not attempt.passed and not switches.media_of_failed:
            self._require_pass(session)
        if not session.plan.recording and switches.unrecorded_media == "error":
            raise ServiceError(216100)
        now = self._store.clock.now()
        urls: dict[str, list[str]] = {"process_video": [], "video": [], "frame": []}
        for asset in session.assets(switches):
            if asset.kind in urls and now < asset.available_until:
                urls[asset.kind].append(self._storage.signed_url(session, asset))
        if switches.both_video_fields and urls["process_video"]:
            urls["video"] = list(urls["process_video"])
        unused: list[str] | None = None
        if switches.unrecorded_media == "empty" and not any(urls.values()):
            unused = []
        error = session.script.ext_info if session.script else None
        return Answer(
            {
                "processVideo": urls["process_video"] or unused,
                "video": urls["video"] or unused,
                "images": urls["frame"] or unused,
                "extInfo": error if session.recorded else None,
            }
        )

    def getall(self, session: Session) -> Answer:
        """result/getall: every attempt, with what was charged."""
        if not session.attempts and self._store.switches.before_attempt != "empty":
            self._require_attempt(session)
        answer = Answer()
        source = session.plan.match_source
        attempts = [self._attempt(session, attempt, answer) for attempt in session.attempts]
        charged = sum(attempt.charged for attempt in session.attempts)
        answer.result = {
            "verify_count": len(attempts),
            "ocr_charge_count": sum(entry["ocr_count"] for entry in attempts),
            "match_charge_count": charged if source == "own_library" else 0,
            "verify_charge_count": charged if source == "authoritative" else 0,
            "verify_result": attempts,
            **({"live_charge_count": charged} if source == "liveness_only" else {}),
        }
        return answer

    def _require_attempt(self, session: Session) -> Attempt:
        """The last attempt, or 283450 (API reference 3.5)."""
        if session.last is not None:
            return session.last
        expired = session.state(self._store.clock.now()) == "expired"
        if expired and self._store.switches.expired_unused == "gone":
            raise ServiceError.gone(self._store)
        raise ServiceError(283450)

    def _require_pass(self, session: Session) -> Attempt:
        attempt = self._require_attempt(session)
        if attempt.passed:
            return attempt
        is_open = session.state(self._store.clock.now()) == "failed_open"
        if is_open and self._store.switches.between_attempts == "not_started":
            raise ServiceError(283450)
        # The code and message of the last attempt (API reference 8.2, 3).
        raise ServiceError(int(attempt.code), attempt.message)

    def _attempt(self, session: Session, attempt: Attempt, answer: Answer) -> dict[str, Any]:
        plan, switches = session.plan, self._store.switches
        time = self._beijing(attempt.at)
        entry: dict[str, Any] = {
            "order": attempt.order,
            "code": attempt.code,
            "message": attempt.message,
            "is_verify_passed": attempt.passed,
            "verify_time": time,
            "is_charged": attempt.charged,
            "charge_type": CHARGE_TYPES[plan.match_source],
            "charge_time": time if attempt.charged else None,
            "is_ocr_charge": plan.uses_ocr,
            "ocr_count": len(plan.card_sides),
            "ocr_charge_time": time if plan.uses_ocr else None,
            "verify_detail": self._verify_detail(session, attempt),
        }
        identity = attempt.identity
        confirmed = identity and {
            "name": identity.name,
            "idcard_number": identity.number,
            "idcard_type": str(identity.certificate_type),
        }
        card = {"idcard_ocr_result": None, "idcard_images": None}
        if plan.uses_ocr:
            card = self._card(session, answer)
        if switches.getall_ocr_place == "confirm" and (confirmed or plan.uses_ocr):
            entry["idcard_confirm"] = (confirmed or {}) | card
        else:
            entry |= {"idcard_confirm": confirmed} | card
        return entry

    def _verify_detail(self, session: Session, attempt: Attempt) -> dict[str, Any]:
        face = session.asset(("attempt_face", attempt.order, 0), self._store.switches)
        return {
            "score": _score(session, attempt.score),
            "threshold": session.plan.threshold,
            "app": False,
            "face_image": self._storage.signed_url(session, face) if face else None,
            "verify_log_id": attempt.verify_log_id,
            "liveness_score": _score(session, attempt.liveness_score),
            "spoofing_score": _score(session, attempt.spoofing),
            "risk_level": attempt.risk_level,
            "risk_tag": attempt.risk_tag,
            "is_demote": attempt.is_demote,
        }

    def _card(self, session: Session, answer: Answer) -> dict[str, Any]:
        """The text and the pictures of the ID card; each picture counts as served once it was delivered."""
        text = {
            "name": SAMPLE_NAME,
            "gender": "男",
            "nation": "汉",
            "birthday": "19491231",
            "address": "北京市朝阳区示例路1号",
            "id_card_number": SAMPLE_NUMBER,
        }
        if "back" in session.plan.card_sides:
            text |= {
                "issue_authority": "北京市公安局朝阳分局",
                "issue_time": "20120101",
                "expire_time": "长期",
            }
        state = session.script.card_images if session.script else "normal"
        pictures: dict[str, str] = {}
        for side in session.plan.card_sides:
            content = b"this is not a picture"
            if state == "normal":
                content = self._card_picture(session, side, answer)
            pictures[f"{side}_base64"] = base64.b64encode(content).decode()
        return {"idcard_ocr_result": text, "idcard_images": None if state == "missing" else pictures}

    def _card_picture(self, session: Session, side: str, answer: Answer) -> bytes:
        key = (f"id_{side}", 0, 0)
        content = self._store.media.picture(key[0], session.seed(*key))
        asset = session.asset(key, self._store.switches)
        if asset is not None:
            self._store.learn(session, asset, Picture(content))
            answer.on_completed.append(partial(self._store.count_delivery, asset, complete=True))
        return content

    def _beijing(self, moment: datetime) -> str:
        local = moment.astimezone(BEIJING)
        if self._store.switches.unpadded_verify_time:
            return f"{local.year}-{local.month}-{local.day} {local:%H:%M:%S}"
        return f"{local:%Y-%m-%d %H:%M:%S}"


def _score(session: Session, score: float | None) -> float | str | None:
    """The score as a number, or as text where the script of the session says so."""
    as_text = session.script is not None and session.script.scores_as_text
    return str(score) if as_text and score is not None else score


def _backend_calls(session: Session, attempt: Attempt) -> list[tuple[str, int]]:
    """Kind and code of every backend call of an attempt."""
    plan, code = session.plan, int(attempt.code)
    calls = [("OCR", 0)] * len(plan.card_sides)
    if plan.liveness in ("action", "digits"):
        calls.append(("Sessioncode", 0))
    at_liveness = code in LIVENESS_CODES
    liveness = "Livenesscolorful" if plan.liveness == "colourful" else "VideoLiveness"
    calls.append((liveness, code if at_liveness else 0))
    if not at_liveness and plan.match_source == "authoritative":
        calls.append(("verify", code))
    return calls
