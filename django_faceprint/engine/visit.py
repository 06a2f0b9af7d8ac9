"""One visit to one claimed session: a working copy of it, and what is to be written about it.

A visit talks to Baidu and to storage and never to the database: it runs in a thread without a
connection. What it learns goes into :class:`~.commit.Changes`, which are written at the end, or in
between when they have been waiting for a while (:meth:`Visit.checkpoint`).
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django_faceprint.base import deadlines
from django_faceprint.base.lease import Lease, Release
from django_faceprint.client import Answer, ErrorClass, FaceprintClient, UpstreamError
from django_faceprint.clock import now
from django_faceprint.evidence import expected, files, retention_rules
from django_faceprint.evidence.answers import make_answer, make_refusal
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    HostDown,
    RateLimitReached,
)
from django_faceprint.models import (
    MediaAsset,
    UpstreamAnswer,
    UpstreamCall,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.upstream.db_thread import run_in_db_thread
from django_faceprint.upstream.errors import columns_of, error_columns, is_evidence

from .commit import Changes, commit_one

logger = logging.getLogger(__name__)

State = MediaAsset.State

#: Seconds that what has been learnt may wait before it is written.
WRITE_WITHIN = 0.5


@dataclass
class Visit:
    """Works on one session under its lease.

    ``urls`` and ``data`` hold, by asset, what upstream has named or sent during this visit: upstream's
    URLs change with every query and are never kept. ``in_time`` tells whether another download may begin.
    """

    lease: Lease
    session: VerificationSession
    connection: FaceprintClient | None
    in_time: Callable[[], bool] = lambda: True
    monotonic: Callable[[], float] = time.monotonic
    assets: dict[tuple[int, str, int], MediaAsset] = field(default_factory=dict)
    urls: dict[UUID, str] = field(default_factory=dict)
    data: dict[UUID, bytes] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    #: Sources of files whose URLs have been asked for a second time.
    asked_anew: set[str] = field(default_factory=set)
    failed: bool = False
    cut_short: bool = False
    #: Seconds after which we may ask again, when our own rate limit or an outage of Baidu held us back.
    held_back: float | None = None
    #: Why this visit did not bring everything, in the words of an asset's ``error``; "" when nobody said.
    trouble: str = ""
    archived: int = 0
    lost: int = 0
    #: Records of the calls to Baidu, written at the end whatever becomes of the rest.
    calls: list[UpstreamCall] = field(default_factory=list)
    on_checkpoint: Callable[[], None] | None = None
    changes: Changes = field(init=False)
    _names: list[str] = field(default_factory=list)
    _kept: dict[str, bool] = field(default_factory=dict)
    _waiting_since: float | None = None

    def __post_init__(self) -> None:
        self.changes = Changes(self.lease, self.session)

    def take_assets(self, assets: Iterable[MediaAsset]) -> None:
        """Begin with the session's assets as they are in the database."""
        self.assets = {_identity(asset): asset for asset in assets}

    # --- what is to be written ----------------------------------------------------------------------

    def update(self, **values: Any) -> None:
        """Change columns of the session."""
        self.changes.columns |= values
        for name, value in values.items():
            setattr(self.session, name, value)
        self._wait()

    def mark(self, stage: str) -> None:
        """Note that *stage* needs no more asking."""
        self.update(stages_done={**self.session.stages_done, stage: now().isoformat()})

    def change(self, asset: MediaAsset, **values: Any) -> None:
        """Change an asset."""
        for name, value in values.items():
            setattr(asset, name, value)
        self.changes.assets[_identity(asset)] = asset
        self._wait()

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
            self.change(asset, state=State.WANTED, reason="", deadline=safe, give_up_at=give_up_at)
        return asset

    def keeps(self, kind: str) -> bool:
        """Whether the rules of retention let files of *kind* be kept at all."""
        if kind not in self._kept:
            self._kept[kind] = self.session.plan.keeps(kind)
        return self._kept[kind]

    def drop_what_is_not_kept(self) -> None:
        """What was wanted before its kind was switched off is not fetched any more."""
        for asset in self.wanted():
            if not self.keeps(asset.kind):
                self.change(asset, state=State.NOT_PROVIDED, reason=MediaAsset.NOT_KEPT, error="")

    def take_attempt(self, order: int, columns: dict[str, Any]) -> None:
        """Keep what upstream says of one attempt."""
        self.changes.attempts[order] = VerificationAttempt(session=self.session, order=order, **columns)
        self._wait()

    def record(self, answer: Answer[Any], *, code: str = "", oddities: tuple[str, ...] = ()) -> None:
        """Keep an answer as evidence, without the pictures that assets of this visit hold."""
        row = make_answer(
            self.session,
            answer.endpoint,
            answer.raw,
            document=answer.document,
            log_id=answer.log_id,
            code=code,
            oddities=oddities,
            pictures=self.pictures,
            cached=self._cached_pictures(),
        )
        self._keep(row)

    def record_refused(self, asset: MediaAsset, data: bytes, reason: str) -> None:
        """Keep as evidence what was sent instead of *asset*."""
        self._keep(make_refusal(self.session, str(asset.source), data, reason))

    def _keep(self, row: UpstreamAnswer) -> None:
        self.changes.answers.setdefault((row.endpoint, row.body_index), row)
        self._wait()

    def after_commit(self, call: Callable[[], None]) -> None:
        """Call this when what was said so far has been written."""
        self.changes.after.append(call)

    def release(
        self, wake_at: datetime | None, pending: deadlines.PendingDeadlines = deadlines.NO_DEADLINES
    ) -> None:
        """Give the session back with the last of the changes."""
        self.changes.release = Release(wake_at, pending)
        self._settle_names()

    def checkpoint(self) -> None:
        """Write what has been learnt so far, if it has waited long enough. Raises :class:`LeaseLost`."""
        if self._waiting_since is not None and self.monotonic() - self._waiting_since >= WRITE_WITHIN:
            self.write()
        if self.on_checkpoint is not None:
            self.on_checkpoint()

    def write(self) -> None:
        """Write what has been learnt so far. Raises :class:`LeaseLost`."""
        changes, self.changes = self.changes, Changes(self.lease, self.session)
        self._waiting_since = None
        if changes:
            run_in_db_thread(lambda: commit_one(changes))

    def abandon(self) -> None:
        """Forget what was to be written; files of it are removed again."""
        names = [*self._names, *self.changes.names]
        self.changes = Changes(self.lease, self.session)
        self._names = []
        if names:
            run_in_db_thread(lambda: files.discard(names))

    def _wait(self) -> None:
        if self._waiting_since is None:
            self._waiting_since = self.monotonic()

    # --- files --------------------------------------------------------------------------------------

    def reserve_names(self, count: int) -> None:
        """Have names for *count* uploads, recorded before anything is written under them."""
        missing = count - len(self._names)
        if missing > 0:
            self._names += run_in_db_thread(lambda: files.reserve_names(self.session.pk, missing))

    def take_names(self, names: Sequence[str]) -> None:
        """Have *names*, which were reserved for this session when it was claimed."""
        self._names += names

    def next_name(self) -> str:
        """A reserved name, to be used for one upload."""
        self.reserve_names(1)
        return self._names.pop()

    def keep_upload(self, asset: MediaAsset, columns: dict[str, Any]) -> None:
        """The file of *asset* lies complete in storage; *columns* are what ``files.save`` returned."""
        self.change(asset, retain_until=retention_rules.expires_at(self.session, asset.kind), **columns)
        self.changes.names.append(asset.stored_name)
        self.changes.stored.append(asset)
        self.archived += 1

    def drop_upload(self, name: str) -> None:
        """An upload failed: remove what there is of it. If that fails too, retention will."""
        if files.delete_file(name):
            self.changes.names.append(name)

    def _settle_names(self) -> None:
        # Reserved and never used: no file is there.
        self.changes.names += self._names
        self._names = []

    # --- what is known ------------------------------------------------------------------------------

    def cache_picture(self, asset: MediaAsset, data: bytes) -> None:
        """Keep the bytes of a picture that came inside an answer until it is stored.

        Their hash is written even if they cannot be stored now: another answer may bring the same picture.
        """
        digest = self.digest(data)
        self.data[asset.public_id] = data
        self.pictures[digest] = str(asset.public_id)
        if asset.state == State.WANTED and asset.sha256 != digest:
            self.change(asset, sha256=digest)

    def digest(self, data: bytes) -> str:
        """SHA-256 of a picture in hex; of one that is held already it is known."""
        known = (digest for digest, cached in self._cached_pictures().items() if cached is data)
        return next(known, "") or hashlib.sha256(data).hexdigest()

    def _cached_pictures(self) -> dict[str, bytes]:
        """SHA-256 → bytes of the card pictures that this visit holds."""
        assets = {digest: UUID(asset_id) for digest, asset_id in self.pictures.items()}
        return {digest: self.data[pk] for digest, pk in assets.items() if pk in self.data}

    def done(self, stage: str) -> bool:
        """Whether *stage* has been answered for good."""
        return stage in self.session.stages_done

    def wanted(self, source: str | None = None) -> list[MediaAsset]:
        """Assets, of *source* if given, that are still to be stored."""
        return [
            asset
            for asset in self.assets.values()
            if asset.state == State.WANTED and source in (None, asset.source)
        ]

    def is_within_reach(self, asset: MediaAsset) -> bool:
        """This visit has the asset's bytes or URL."""
        return asset.public_id in self.urls or asset.public_id in self.data

    def out_of_reach(self, source: str) -> list[MediaAsset]:
        """Wanted assets for which this visit has neither bytes nor a URL yet."""
        return [asset for asset in self.wanted(source) if not self.is_within_reach(asset)]

    # --- steps and what goes wrong in them ----------------------------------------------------------

    def attempt(self, step: Callable[[Visit], None]) -> None:
        """Run one step; a failure is written on the session and does not keep the other steps from trying."""
        problem: FaceprintError | FaceprintConfigurationError | None = None
        try:
            step(self)
        except (FaceprintError, FaceprintConfigurationError) as error:
            problem = error
        if problem is not None:
            self._note(problem)
        self.checkpoint()

    def _note(self, problem: FaceprintError | FaceprintConfigurationError) -> None:
        if isinstance(problem, RateLimitReached | HostDown):
            # Not the session's fault, and nothing was asked: it keeps its place.
            self.held_back = max(self.held_back or 0.0, problem.retry_after)
            self.trouble = self.trouble or ErrorClass.SLOW_DOWN.value
            return
        self.failed = True
        values = error_columns(problem)
        self.write_problem(values)
        error: UpstreamError | None = getattr(problem, "error", None)
        raw = getattr(problem, "raw", None)
        if raw and error is not None and is_evidence(problem):
            self._keep(
                make_answer(
                    self.session, error.endpoint, raw, log_id=error.log_id, code=error.code, parsed=False
                )
            )
        logger.warning(
            "faceprint: session %s: %s (code %s, log_id %s)",
            self.session.public_id,
            values["error_class"],
            values["error_code"] or "-",
            values["error_log_id"] or "-",
        )

    def say(self, error: UpstreamError | None) -> None:
        """Write on the session what upstream answered instead of a result, if it said anything."""
        if error is not None:
            self.write_problem(columns_of(error))

    def note_unreadable(self, answer: Answer[Any]) -> None:
        """Upstream said that it succeeded, and what it says of evidence cannot be read: it is asked again."""
        self.failed = True
        self.write_problem(
            {
                "error_class": ErrorClass.UNKNOWN.value,
                "error_code": "unreadable_result",
                "error_message": "",
                "error_log_id": answer.log_id[:40],
            }
        )

    def write_problem(self, values: dict[str, str]) -> None:
        """Write on the session what went wrong, unless the columns tell why the person failed."""
        self.trouble = ": ".join(filter(None, (values["error_class"], values["error_code"])))
        if self.session.verdict != VerificationSession.Verdict.FAILED:
            self.update(**values)

    @property
    def client(self) -> FaceprintClient:
        """Baidu. Raises :class:`FaceprintConfigurationError` on a visit that is made without it."""
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
