"""One visit to one claimed session: the lease, the row as loaded, and what has been learnt so far."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django_faceprint.client import FaceprintClient, UpstreamError
from django_faceprint.clock import now
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, Rejected
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.fields import column_values

from . import deadlines, evidence
from .answers import record_answer
from .problems import columns_of, error_columns
from .schedule import Lease

logger = logging.getLogger(__name__)

State = MediaAsset.State


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
    urls: dict[int, str] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    failed: bool = False
    cut_short: bool = False
    archived: int = 0
    lost: int = 0

    def update(self, **values: Any) -> None:
        """Change the session's row under the lease, and the instance with it."""
        self.lease.update(**column_values(self.session, values))
        for name, value in values.items():
            setattr(self.session, name, value)

    def mark(self, stage: str) -> None:
        """Note that *stage* needs no more asking."""
        self.update(stages_done={**self.session.stages_done, stage: now().isoformat()})

    def hold(self, asset: MediaAsset, data: bytes) -> None:
        """Keep the bytes of a picture that came inside an answer until it is stored."""
        self.data[asset.pk] = data
        self.pictures[hashlib.sha256(data).hexdigest()] = str(asset.public_id)

    def done(self, stage: str) -> bool:
        """Whether *stage* has been answered for good."""
        return stage in self.session.stages_done

    def attempt(self, step: Callable[[Visit], None]) -> None:
        """Run one step; a failure is written on the session and does not keep the other steps from trying."""
        problem: FaceprintError | FaceprintConfigurationError | None = None
        try:
            step(self)
        except (FaceprintError, FaceprintConfigurationError) as error:
            problem = error
        if problem is not None:
            self._note(problem)

    def _note(self, problem: FaceprintError | FaceprintConfigurationError) -> None:
        self.failed = True
        values = error_columns(problem)
        self.write_problem(values)
        raw = getattr(problem, "raw", None)
        upstream_error: UpstreamError | None = getattr(problem, "error", None)
        if raw and upstream_error is not None and isinstance(problem, Rejected):
            with self.lease.fenced():
                record_answer(
                    self.session,
                    upstream_error.endpoint,
                    raw,
                    log_id=upstream_error.log_id,
                    code=upstream_error.code,
                    parsed=False,
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

    def write_problem(self, values: dict[str, str]) -> None:
        """Write on the session what went wrong, unless the columns tell why the person failed."""
        if self.session.verdict != VerificationSession.Verdict.FAILED:
            self.update(**values)

    def want(self, item: evidence.ExpectedAsset, attempt_time: datetime | None = None) -> MediaAsset:
        """Make sure that the row of *item* exists; an asset that was not provided may become wanted."""
        safe, latest = deadlines.asset_deadlines(self.session, item.kind, attempt_time)
        asset, created = MediaAsset.objects.get_or_create(
            session=self.session,
            attempt_order=item.attempt_order,
            kind=item.kind,
            position=item.position,
            defaults={
                "source": item.source,
                "state": item.state,
                "reason": item.reason,
                "deadline": safe,
                "latest": latest,
            },
        )
        if not created and item.state == State.WANTED and asset.state == State.NOT_PROVIDED:
            # Upstream gives now what it did not give before, or what the plan did not promise.
            MediaAsset.objects.filter(pk=asset.pk, state=State.NOT_PROVIDED).update(
                state=State.WANTED, reason="", deadline=safe, latest=latest
            )
            asset.refresh_from_db()
        return asset

    def wanted(self, source: str) -> list[MediaAsset]:
        """Assets of *source* that are still to be stored."""
        return list(self.session.assets.wanted().filter(source=source))

    def out_of_reach(self, source: str) -> list[MediaAsset]:
        """Wanted assets for which this visit has neither bytes nor a URL yet."""
        return [item for item in self.wanted(source) if item.pk not in self.urls and item.pk not in self.data]

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
