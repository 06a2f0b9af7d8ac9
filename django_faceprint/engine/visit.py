"""One visit to one claimed session: a working copy of it, and the changes to be written.

A visit talks to Baidu and to storage and never to the database: it runs in a thread without a connection.
Its results go into :class:`~.commit.Changes`, which are written at the end, or in between when they have
waited for a while (:meth:`Visit.checkpoint`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django_faceprint.base import deadlines
from django_faceprint.base.db_thread import Database, Interrupts, in_this_thread
from django_faceprint.base.lease import Lease, Release
from django_faceprint.client import Answer, FaceprintClient
from django_faceprint.clock import now
from django_faceprint.evidence import expected, files, retention_rules
from django_faceprint.evidence.answers import make_answer, make_refusal
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.models import (
    MediaAsset,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.upstream.clients import Upstream

from .card_pictures import CardPictures
from .commit import Changes, commit_one
from .retry import DatabaseRetry
from .upload_names import UploadNames

State = MediaAsset.State

#: Seconds after which a checkpoint writes what has been learnt.
WRITE_AFTER = 0.5


@dataclass(frozen=True)
class VisitContext:
    """What visits need of the run that makes them."""

    upstream: Upstream
    database: Database = in_this_thread
    retry: DatabaseRetry = field(default_factory=DatabaseRetry)
    monotonic: Callable[[], float] = time.monotonic
    #: Whether another download may begin.
    may_download: Callable[[], bool] = lambda: True
    #: Called between slow steps: commits finished visits and renews leases.
    checkpoint: Callable[[], None] = lambda: None
    interrupts: Interrupts = ()


@dataclass
class Outcome:
    """How a visit went."""

    failed: bool = False
    #: The run had no time for all downloads.
    cut_short: bool = False
    #: Seconds until the next try, when our own rate limit or an outage of Baidu held us back.
    retry_after: float | None = None
    #: Class and detail of why the visit did not bring everything, for the assets that it did not reach.
    error_class: str = ""
    error_detail: str = ""
    archived: int = 0
    lost: int = 0


class Visit:
    """Works on one session under its lease.

    ``urls`` holds, by asset, what upstream has named during this visit: upstream's URLs change with every
    query and are never kept.
    """

    def __init__(
        self,
        lease: Lease,
        session: VerificationSession,
        context: VisitContext,
        *,
        assets: Iterable[MediaAsset] = (),
        names: Sequence[str] = (),
    ) -> None:
        self.lease = lease
        self.session = session
        self.context = context
        self.assets = {_identity(asset): asset for asset in assets}
        self.names = UploadNames(session.pk, context.database, names)
        self.pictures = CardPictures()
        self.urls: dict[UUID, str] = {}
        #: Sources whose URLs were requested a second time.
        self.renewed_sources: set[str] = set()
        self.outcome = Outcome()
        #: Records of the calls to Baidu, written at the end whatever becomes of the rest.
        self.calls: list[UpstreamCall] = []
        self.changes = Changes(lease, session)
        self.connection: FaceprintClient | None = None
        self._unwritten_since: float | None = None
        self._kept_kinds: dict[str, bool] = {}

    # --- what is to be written ----------------------------------------------------------------------

    def update(self, **values: Any) -> None:
        """Change columns of the session."""
        self.changes.columns |= values
        for name, value in values.items():
            setattr(self.session, name, value)
        self._note_unwritten()

    def mark_answered(self, step: str) -> None:
        """*step* (``getall``, ``simple``, ``media``, ``stat``) needs no further request."""
        self.update(**{f"{step}_answered_at": now()})

    def change(self, asset: MediaAsset, **values: Any) -> None:
        """Change an asset."""
        for name, value in values.items():
            setattr(asset, name, value)
        self.changes.assets[_identity(asset)] = asset
        self._note_unwritten()

    def want(self, item: expected.ExpectedAsset, attempt_time: datetime | None = None) -> MediaAsset:
        """Make sure that the row of *item* exists; an asset that was not provided may become wanted."""
        key = (item.attempt_order, item.kind, item.position)
        asset = self.assets.get(key)
        safe, give_up_at = deadlines.asset_deadlines(self.session, item.kind, attempt_time)
        if asset is None:
            asset = self.assets[key] = MediaAsset(
                session=self.session,
                attempt_order=item.attempt_order,
                kind=item.kind,
                position=item.position,
                source=item.source,
            )
            state, reason = item.state, item.reason
            if state == State.WANTED and not self.keeps(item.kind):
                state, reason = State.NOT_PROVIDED, MediaAsset.NOT_KEPT
            self.change(asset, state=state, reason=reason, deadline=safe, give_up_at=give_up_at)
        elif item.state == State.WANTED and asset.state == State.NOT_PROVIDED and self.keeps(item.kind):
            # Upstream gives now what it did not give before, or what the plan did not promise.
            self.change(
                asset, state=State.WANTED, reason="", ext_info="", deadline=safe, give_up_at=give_up_at
            )
        return asset

    def keeps(self, kind: str) -> bool:
        """Whether the retention rules allow files of *kind*."""
        if kind not in self._kept_kinds:
            self._kept_kinds[kind] = self.session.plan.keeps(kind)
        return self._kept_kinds[kind]

    def drop_unkept(self) -> None:
        """Stop fetching wanted assets whose kind has been switched off since."""
        for asset in self.wanted():
            if not self.keeps(asset.kind):
                self.change(
                    asset,
                    state=State.NOT_PROVIDED,
                    reason=MediaAsset.NOT_KEPT,
                    error_class="",
                    error_detail="",
                )

    def add_attempt(self, order: int, columns: dict[str, Any]) -> None:
        """Keep what upstream says of one attempt."""
        self.changes.attempts[order] = VerificationAttempt(session=self.session, order=order, **columns)
        self._note_unwritten()

    def add_answer(self, answer: Answer[Any], *, code: str = "", oddities: tuple[str, ...] = ()) -> None:
        """Keep an answer as evidence, without the pictures that assets of this visit hold."""
        row = make_answer(
            self.session,
            answer.endpoint,
            answer.raw,
            document=answer.document,
            log_id=answer.log_id,
            code=code,
            oddities=oddities,
            pictures=self.pictures.asset_ids,
            cached=self.pictures.by_digest(),
            decode=self.pictures.decode,
        )
        self.add_answer_row(row)

    def add_refusal(self, asset: MediaAsset, data: bytes, reason: str) -> None:
        """Keep as evidence what was sent instead of *asset*."""
        self.add_answer_row(make_refusal(self.session, str(asset.source), data, reason))

    def add_answer_row(self, row: UpstreamAnswer) -> None:
        """Keep an answer; of equal ones the first."""
        self.changes.answers.setdefault((row.endpoint, row.body_index), row)
        self._note_unwritten()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this when the changes so far have been written."""
        self.changes.after.append(call)

    def release(
        self, wake_at: datetime | None, pending: deadlines.PendingDeadlines = deadlines.NO_DEADLINES
    ) -> None:
        """Give the session back with the last of the changes."""
        self.changes.release = Release(wake_at, pending)
        self.changes.names += self.names.take_unused()

    def checkpoint(self) -> None:
        """Write the changes if they have waited long enough. Raises :class:`LeaseLost`."""
        waiting_since = self._unwritten_since
        if waiting_since is not None and self.context.monotonic() - waiting_since >= WRITE_AFTER:
            self.write()
        self.context.checkpoint()

    def write(self) -> None:
        """Write the changes so far. Raises :class:`LeaseLost`."""
        changes, self.changes = self.changes, Changes(self.lease, self.session)
        self._unwritten_since = None
        if changes:
            self.context.database(lambda: commit_one(changes, self.context.retry))

    def abandon(self) -> None:
        """Forget the changes, and remove the files that belong to them."""
        names = [*self.names.take_unused(), *self.changes.names]
        self.changes = Changes(self.lease, self.session)
        if names:
            self.context.database(lambda: files.discard(names))

    def _note_unwritten(self) -> None:
        if self._unwritten_since is None:
            self._unwritten_since = self.context.monotonic()

    # --- files --------------------------------------------------------------------------------------

    def keep_picture(self, asset: MediaAsset, data: bytes) -> None:
        """Keep the bytes of a picture that came inside an answer until it is stored.

        Its hash is written even if it cannot be stored now: another answer may bring the same picture.
        """
        digest = self.pictures.keep(asset, data)
        if asset.state == State.WANTED and asset.sha256 != digest:
            self.change(asset, sha256=digest)

    def keep_upload(self, asset: MediaAsset, name: str, columns: dict[str, Any]) -> None:
        """The file of *asset* lies complete in storage; *columns* come from ``files.write_checked``."""
        written = columns["stored_name"]
        if written != name:
            try:
                self.context.database(lambda: files.rename_reserved(name, written))
            except BaseException:
                # Under this name, nothing would ever find it.
                files.delete_file(written)
                raise
        self.change(asset, retain_until=retention_rules.expires_at(self.session, asset.kind), **columns)
        self.changes.names.append(written)
        self.changes.stored.append(asset)
        self.outcome.archived += 1

    def drop_upload(self, name: str) -> None:
        """An upload failed: remove what there is of it. If that fails too, retention will."""
        if files.delete_file(name):
            self.changes.names.append(name)

    # --- what is known ------------------------------------------------------------------------------

    def is_answered(self, step: str) -> bool:
        """Whether *step* has been answered for good."""
        return getattr(self.session, f"{step}_answered_at") is not None

    def wanted(self, source: str | None = None) -> list[MediaAsset]:
        """Assets, of *source* if given, that are still to be stored."""
        return [
            asset
            for asset in self.assets.values()
            if asset.state == State.WANTED and source in (None, asset.source)
        ]

    def is_available(self, asset: MediaAsset) -> bool:
        """Whether this visit has the asset's bytes or URL."""
        return asset.public_id in self.urls or self.pictures.data_of(asset) is not None

    def unavailable(self, source: str) -> list[MediaAsset]:
        """Wanted assets for which this visit has neither bytes nor a URL yet."""
        return [asset for asset in self.wanted(source) if not self.is_available(asset)]

    @property
    def client(self) -> FaceprintClient:
        """Baidu. Raises :class:`FaceprintConfigurationError` on a visit without a connection."""
        if self.connection is None:
            raise FaceprintConfigurationError("This visit was made without a connection to Baidu.")
        return self.connection

    @property
    def token(self) -> str:
        """The verify_token. Raises :class:`FaceprintConfigurationError` once it has been erased."""
        token = self.session.verify_token
        if not token:
            raise FaceprintConfigurationError("The session's verify_token is gone.")
        return token


def _identity(asset: MediaAsset) -> tuple[int, str, int]:
    return asset.attempt_order, str(asset.kind), asset.position
