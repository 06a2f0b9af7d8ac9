"""Card pictures that come inside answers: kept by a visit until they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from uuid import UUID

from django_faceprint.client import PictureCache
from django_faceprint.models import MediaAsset


class CardPictures:
    """The bytes of card pictures, and which asset holds the picture of a SHA-256 (hex)."""

    def __init__(self) -> None:
        #: Decodes pictures inside answers: the same text gives the same object.
        self.decode = PictureCache().decode
        #: SHA-256 → public id of the asset, also of assets that were stored by an earlier visit.
        self.asset_ids: dict[str, str] = {}
        self._data: dict[UUID, bytes] = {}

    def note_stored(self, assets: Iterable[MediaAsset]) -> None:
        """Let *assets*, whose hashes are known, count as holders of their pictures."""
        self.asset_ids |= {asset.sha256: str(asset.public_id) for asset in assets}

    def keep(self, asset: MediaAsset, data: bytes) -> str:
        """Keep *data* as the picture of *asset*; returns its SHA-256."""
        digest = self.digest(data)
        self._data[asset.public_id] = data
        self.asset_ids[digest] = str(asset.public_id)
        return digest

    def data_of(self, asset: MediaAsset) -> bytes | None:
        """The picture of *asset*, if this visit has it."""
        return self._data.get(asset.public_id)

    def by_digest(self) -> dict[str, bytes]:
        """SHA-256 → bytes of the pictures that are kept."""
        owners = {digest: UUID(asset_id) for digest, asset_id in self.asset_ids.items()}
        return {digest: self._data[owner] for digest, owner in owners.items() if owner in self._data}

    def digest(self, data: bytes) -> str:
        """SHA-256 of *data* in hex; that of a picture which is kept already is not computed again."""
        known = (digest for digest, kept in self.by_digest().items() if kept is data)
        return next(known, "") or hashlib.sha256(data).hexdigest()
