"""The files of one record, as its page shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext

from django_faceprint.evidence.expected import describe_absence
from django_faceprint.models import MediaAsset

from . import labels
from .presentation import Badge, thumbnail_url

Kind = MediaAsset.Kind
State = MediaAsset.State

_ORDER: list[str] = [
    *(Kind.FACE, Kind.ID_FRONT, Kind.ID_BACK, Kind.MATCH_IMAGE, Kind.ATTEMPT_FACE, Kind.FRAME),
    *(Kind.THUMBNAIL, Kind.PROCESS_VIDEO, Kind.VIDEO),
]


@dataclass(frozen=True)
class File:
    """An expected or archived file. ``url`` and ``thumbnail`` are "" for users without ``view_media``."""

    asset: MediaAsset
    name: str
    state: Badge
    explanation: str
    error: str
    dimensions: str
    url: str
    overdue: bool
    thumbnail: str

    @classmethod
    def of(cls, asset: MediaAsset, moment: datetime, url: Callable[[MediaAsset], str] | None) -> File:
        """The file of *asset* at *moment*. *url* makes the address of its content; None hides it."""
        stored = asset.state == State.STORED
        absence = describe_absence(asset)
        state = absence if asset.is_not_kept else asset.get_state_display()
        overdue = asset.state == State.WANTED and asset.deadline is not None and asset.deadline <= moment
        return cls(
            asset=asset,
            name=file_name(asset),
            state=Badge(state, labels.ASSET_TONES[State(asset.state)]),
            explanation="" if asset.is_not_kept else absence,
            error="" if stored else labels.describe_asset_error(asset.error_class, asset.error_detail),
            dimensions=_dimensions(asset),
            url=url(asset) if stored and url else "",
            overdue=overdue,
            thumbnail=thumbnail_url(asset) if url else "",
        )

    @property
    def is_stored(self) -> bool:
        return self.asset.state == State.STORED


def file_order(asset: MediaAsset) -> tuple[int, int, int]:
    """The sort key of files: by kind, attempt and position."""
    return _ORDER.index(asset.kind), asset.attempt_order, asset.position


def file_name(asset: MediaAsset) -> str:
    """The name of the file: its kind, with position and attempt where there are several."""
    name = asset.get_kind_display()
    if asset.kind == Kind.FRAME or asset.position:
        name = f"{name} {asset.position + 1}"
    if asset.attempt_order:
        name = gettext("%(file)s, attempt %(order)s") % {"file": name, "order": asset.attempt_order}
    return name


def _dimensions(asset: MediaAsset) -> str:
    parts = []
    if asset.width and asset.height:
        parts.append(f"{asset.width} × {asset.height}")
    if asset.duration:
        parts.append(labels.format_seconds(asset.duration))
    return " · ".join(parts)
