"""The files of made-up records: rows that say what was archived, lost or erased. No file is stored."""

from __future__ import annotations

import io
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Literal
from uuid import UUID

from PIL import Image, ImageDraw

from django_faceprint.base.deadlines import PendingDeadlines
from django_faceprint.client import ErrorClass
from django_faceprint.evidence.expected import ExpectedAsset
from django_faceprint.evidence.thumbnails import make_thumbnail
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.files import new_file_key, seal_thumbnail, wrap_file_key
from django_faceprint.upstream.errors import UNSAFE_MEDIA

from .sample_drafts import PREFIX, Draft, Rng, Rows, Values

ArchiveState = VerificationSession.ArchiveState
Kind = MediaAsset.Kind
State = MediaAsset.State
Source = MediaAsset.Source
Files = Literal["none", "main", "all"]

#: Shares of the records that passed: some, or all, of the files were not archived in time.
PARTIAL_SHARE, LOST_SHARE = 0.012, 0.004
ERASED_FILE: Values = {
    "state": State.ERASED.value,
    "sha256": "",
    "stored_name": "",
    "wrapped_key": None,
    "thumbnail": None,
    "retain_until": None,
}
MAIN_KINDS = frozenset({Kind.FACE, Kind.PROCESS_VIDEO, Kind.VIDEO, Kind.MATCH_IMAGE})


class FileMaker:
    """Adds the files of one record after the other, and decides the records' archive states.

    *files*: rows for no file, for the main kinds (``main``), or for all.
    """

    def __init__(self, rng: Rng, moment: datetime, files: Files) -> None:
        self._rng = rng
        self._moment = moment
        self._files = files
        self._faces = _drawn_faces()

    def archive(self, rows: Rows, draft: Draft, *, collecting: bool) -> None:
        """Set the archive state of a decided record and add the rows of its files."""
        rng, values = self._rng, draft.values
        luck = rng.random()
        expected = self._expected(draft)
        archived_at = values["decided_at"] + timedelta(seconds=rng.uniform(1.5, 9))
        state = ArchiveState.COMPLETE
        if collecting or archived_at >= self._moment:
            state = ArchiveState.COLLECTING
            if rng.chance(0.3):
                values |= rng.error(ErrorClass.RETRY, "http_error")
        elif draft.passed and luck < LOST_SHARE + PARTIAL_SHARE:
            state = ArchiveState.LOST if luck < LOST_SHARE else ArchiveState.PARTIAL
            archived_at = min(values["media_give_up_at"], self._moment)
            if rng.chance(0.5):
                values |= {**rng.error(ErrorClass.RETRY, ""), "error_class": UNSAFE_MEDIA}
        elif not draft.passed and not any(item.state == State.WANTED for item in expected):
            state = ArchiveState.NOT_APPLICABLE
        values["archive_state"] = state.value
        values["archived_at"] = None if state == ArchiveState.COLLECTING else archived_at
        self._add_rows(rows, draft, expected, archived_at)

    def _expected(self, draft: Draft) -> list[ExpectedAsset]:
        expected = [*draft.facts.expected[draft.values["verdict"]]]
        if draft.passed:
            expected += map(_attempt_face, range(1, draft.attempts + 1))
        elif self._rng.chance(0.6):
            expected.append(_attempt_face(1))
        return expected

    def _add_rows(
        self, rows: Rows, draft: Draft, expected: list[ExpectedAsset], archived_at: datetime
    ) -> None:
        values = draft.values
        state = values["archive_state"]
        collecting = state == ArchiveState.COLLECTING
        # The video goes before the face does.
        perishable = [n for n, item in enumerate(expected) if item.state == State.WANTED and _is_main(item)]
        missing: set[int] = set()
        if state == ArchiveState.LOST:
            missing = set(range(len(expected)))
        elif state == ArchiveState.PARTIAL:
            missing = set(perishable[-1:])
        has_face = len(perishable) > 1 and self._rng.chance(0.5)
        wanted = []
        for n, item in enumerate(expected):
            has_row = self._files == "all" or (self._files == "main" and (not draft.passed or _is_main(item)))
            if not (has_row or collecting):
                continue
            row = self._row(
                draft,
                item,
                archived_at,
                is_lost=item.state == State.WANTED and n in missing,
                is_wanted=collecting and not (has_face and item.kind == Kind.FACE),
            )
            if row["state"] == State.WANTED:
                wanted.append(row["deadline"])
            if has_row:
                rows.assets.append(row)
        if collecting:
            values |= PendingDeadlines.of([*wanted, values["results_deadline"]], self._moment).columns()

    def _row(
        self, draft: Draft, item: ExpectedAsset, archived_at: datetime, *, is_lost: bool, is_wanted: bool
    ) -> Values:
        rng, values = self._rng, draft.values
        is_media = item.kind in MediaAsset.MEDIA_KINDS
        row: Values = {
            "session_id": draft.index,
            "public_id": rng.id_at(values["decided_at"]),
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
                "tries": rng.randint(3, 9),
            }
        if is_wanted and item.source != Source.UPLOAD:
            return {**row, "state": State.WANTED.value, "tries": rng.randint(0, 3)}
        if is_media and values["is_demoted"] and item.kind == Kind.PROCESS_VIDEO:
            return {**row, "state": State.NOT_PROVIDED.value, "reason": "demoted"}
        return row | self._stored(draft, item, row["public_id"], archived_at)

    def _stored(self, draft: Draft, item: ExpectedAsset, public_id: UUID, archived_at: datetime) -> Values:
        """The columns of a file that was archived, and perhaps erased since."""
        rng = self._rng
        key = new_file_key()
        row: Values = {
            "state": State.STORED.value,
            "sha256": f"{rng.getrandbits(256):064x}",
            "archived_at": min(archived_at, self._moment),
            "stored_name": f"{PREFIX}{public_id.hex}",
            "wrapped_key": wrap_file_key(key, public_id),
            "width": 480,
            "height": 640,
        }
        if item.kind in MediaAsset.VIDEO_KINDS:
            row |= {
                "content_type": "video/mp4",
                "size": rng.randint(900_000, 6_000_000),
                "duration": round(rng.uniform(3, 12), 2),
            }
        else:
            row |= {"content_type": "image/jpeg", "size": rng.randint(40_000, 260_000)}
        if draft.with_thumbnail and item.kind in (Kind.FACE, Kind.ATTEMPT_FACE):
            draft.with_thumbnail = False
            row["thumbnail"] = seal_thumbnail(rng.choice(self._faces), key, public_id)
        retention = draft.facts.file_retention[item.kind]
        if retention is not None:
            row["retain_until"] = draft.values["decided_at"] + retention
            if row["retain_until"] < self._moment:
                row |= ERASED_FILE | {"reason": "retention"}
        return row


@lru_cache
def _attempt_face(order: int) -> ExpectedAsset:
    return ExpectedAsset(Kind.ATTEMPT_FACE, Source.GETALL, attempt_order=order)


def _is_main(item: ExpectedAsset) -> bool:
    return item.kind in MAIN_KINDS


def _drawn_faces() -> list[bytes]:
    """A few drawn faces, made into thumbnails as photographs are."""
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
