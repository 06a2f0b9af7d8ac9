"""Which pictures and videos a verification must yield, from its plan and verdict (API reference 6)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from django_faceprint.models import MediaAsset, Plan, VerificationSession

Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source

#: Real-time plans keep four face pictures (API reference 3.7).
FRAMES = 4

RECORDING_OFF = "recording_off"
NOT_PASSED = "not_passed"
UPSTREAM_GAVE_NONE = "upstream_gave_none"
SAME_AS_PROCESS_VIDEO = "same_as_process_video"
UPLOAD_CUT_OFF = "upload_cut_off"
UPSTREAM_EXPLAINED = "upstream_explained"


#: ``reason`` of a file that is not there, in words.
REASONS: dict[str, Promise] = {
    "recording_off": _("recording is off at Baidu"),
    "not_passed": _("only kept when the person passes"),
    "upstream_gave_none": _("Baidu gave none"),
    "same_as_process_video": _("the same file as the process video"),
    "upstream_explained": _("Baidu says why"),
    "upload_cut_off": _("the upload was cut off"),
    "demoted": _("the browser fell back to recorded video"),
    MediaAsset.NOT_KEPT: _("not kept by rule"),
    "retention": _("the retention period is over"),
    "erased": _("erased on request"),
}


@dataclass(frozen=True)
class ExpectedAsset:
    """One asset that should exist, or one whose absence is explained by ``reason``."""

    kind: str
    source: str
    position: int = 0
    attempt_order: int = 0
    state: str = State.WANTED
    reason: str = ""


def expected_assets(
    plan: Plan, verdict: str, *, with_id_front: bool, with_id_back: bool
) -> list[ExpectedAsset]:
    """What is to be archived once the verdict is known; empty without a decision about the person.

    ID card pictures travel inside result/detail, so the answer itself tells whether they exist.
    Faces of attempts become known with result/getall.
    """
    if verdict == VerificationSession.Verdict.PASSED:
        expected = [ExpectedAsset(Kind.FACE, Source.SIMPLE)]
        if with_id_front:
            expected.append(ExpectedAsset(Kind.ID_FRONT, Source.DETAIL))
        if with_id_back:
            expected.append(ExpectedAsset(Kind.ID_BACK, Source.DETAIL))
        return expected + _recordings(plan)
    if verdict == VerificationSession.Verdict.FAILED:
        face = ExpectedAsset(Kind.FACE, Source.SIMPLE, state=State.NOT_PROVIDED, reason=NOT_PASSED)
        return [face]
    return []


def _recordings(plan: Plan) -> list[ExpectedAsset]:
    video_kind = Kind.PROCESS_VIDEO if plan.is_real_time else Kind.VIDEO
    if not plan.records_video:
        return [ExpectedAsset(video_kind, Source.MEDIA, state=State.NOT_PROVIDED, reason=RECORDING_OFF)]
    recordings = [ExpectedAsset(video_kind, Source.MEDIA)]
    if plan.is_real_time:
        recordings += [ExpectedAsset(Kind.FRAME, Source.MEDIA, position=number) for number in range(FRAMES)]
    return recordings


def never_named(plan: Plan, *, attempts: bool, recordings: bool) -> list[ExpectedAsset]:
    """What a decided session must have had whose *attempts* or *recordings* upstream never told.

    A person who passed or failed has tried, and a plan that records has recorded it.
    """
    missing = [] if attempts else [ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=1)]
    if not recordings and plan.records_video:
        missing += _recordings(plan)[:1]
    return missing


#: Where an answer names evidence: URLs, pictures, and what holds them.
_NAMES_EVIDENCE = re.compile(
    r"\.(?:image|images|video|processVideo|face_image|verify_detail|verify_result\[[0-9]+\])$|"
    r"\bidcard_images\b"
)


def is_unread(oddities: Iterable[str]) -> bool:
    """Whether, by the paths of what could not be read, an answer may name evidence that we do not see."""
    return any(_NAMES_EVIDENCE.search(path) for path in oddities)


def is_card_unread(oddities: Iterable[str], side: str) -> bool:
    """The same for one side (``front``, ``back``) of the ID card."""
    return any(path.endswith((".idcard_images", f".{side}_base64")) for path in oddities)


def describe_absence(asset: MediaAsset) -> str:
    """Why a file is not there; "" when there is no reason."""
    if asset.reason == UPSTREAM_EXPLAINED:
        return gettext("Baidu says: %(text)s") % {"text": asset.ext_info}
    return str(REASONS.get(asset.reason, asset.reason))
