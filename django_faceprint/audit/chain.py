"""The chain over the access log: it shows whether an entry was changed, removed or inserted.

Entries are chained a moment after they were committed, in the order in which they are found: a transaction
may commit after one that began later. Each link holds SHA-256 over the link before it and the entry, and a
MAC of that under the encryption keys, which no database holds. A head, ``sequence:digest``, that is kept
elsewhere (the daily mail carries it) shows that later links were cut off.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Exists, Max, OuterRef, QuerySet

from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.models import AccessLog, AccessReason, AccessSeal
from django_faceprint.models.append_only import KEPT_AT_LEAST
from django_faceprint.privacy.keys import SealBroken, UnknownKey, encryption_ring

from .access import reason_digest

BATCH = 1_000
#: How long after its time an entry may still be committed; a later one is a finding.
LATE = timedelta(hours=1)
#: An entry that is older than this and has no link was not reached by ``faceprint.seal``.
UNSEALED_AFTER = timedelta(minutes=5)
#: By how much clocks of web servers, workers and the database may differ.
CLOCK_MARGIN = timedelta(hours=1)
#: Findings that are listed; beyond them only their number is known.
NAMED = 1_000
PURPOSE = "access log"
VERSION = 1

# The columns of each version of the format, in order. A column that is added later means a new version.
_COLUMNS = {
    1: (
        *("public_id", "at", "actor_id", "actor_name", "action", "session_id", "asset_id"),
        *("channel", "address", "reason_code", "reason_digest"),
    )
}


@dataclass(frozen=True)
class Finding:
    """Something wrong with the log, and the link or entry at which it was found.

    ``kind`` is one of ``edited missing gap backdated unsealed truncated forged unknown_key reason``.
    """

    kind: str
    sequence: int | None = None
    log_id: int | None = None


@dataclass
class Verification:
    """The result of verifying the whole log. ``head`` is the last link as ``sequence:digest``.

    ``counts`` has all findings by kind, ``findings`` the first :data:`NAMED` of them.
    """

    links: int = 0
    entries: int = 0
    head: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, kind: str, sequence: int | None = None, log_id: int | None = None) -> None:
        """Count one more finding."""
        self.counts[kind] += 1
        if len(self.findings) < NAMED:
            self.findings.append(Finding(kind, sequence, log_id))


# --- making links -------------------------------------------------------------------------------


def add_links() -> int:
    """Chain the entries that have been committed to the log; returns how many.

    Safe to run twice at once: one of the two makes the links.
    """
    moment = now()
    made = 0
    count = BATCH
    while count == BATCH:
        try:
            with transaction.atomic():
                count = _seal_batch(moment)
        except IntegrityError:
            # Another run has just made the link with this sequence.
            return made
        made += count
    return made


def head() -> str:
    """The last link as ``sequence:digest``; "" when there is none."""
    last = _last_link()
    return f"{last.sequence}:{last.digest}" if last else ""


def prune_log() -> int:
    """Delete one batch of entries past ``LOG_RETENTION``, with their reasons and links; returns how many.

    The newest of the links that are old enough stays as the anchor of the chain.
    """
    # The triggers go by the database's clock, and an entry's time is that of another machine than its link's.
    entries_until = now() - max(conf.log_retention, KEPT_AT_LEAST) - CLOCK_MARGIN
    cutoff = entries_until - CLOCK_MARGIN
    anchor = AccessSeal.objects.filter(sealed_at__lt=cutoff).order_by("-sequence").first()
    if anchor is None:
        return 0
    old = AccessSeal.objects.filter(sequence__lt=anchor.sequence).order_by("sequence")
    links = list(old.values_list("sequence", "log_id")[:BATCH])
    if not links:
        return 0
    with transaction.atomic():
        entries = AccessLog.objects.filter(pk__in=[log_id for _, log_id in links])
        public_ids = list(entries.values_list("public_id", flat=True))
        AccessReason.objects.filter(public_id__in=public_ids).delete()
        pruned = entries.prune("at", entries_until)
        AccessSeal.objects.filter(sequence__lte=links[-1][0]).prune("sealed_at", cutoff)
    return pruned


def _seal_batch(moment: datetime) -> int:
    last = _last_link()
    sequence, digest = (last.sequence, last.digest) if last else (0, "")
    entries = _waiting(last)
    links = []
    for entry in entries:
        sequence += 1
        digest = _digest(VERSION, sequence, digest, moment, entry)
        links.append(
            AccessSeal(
                sequence=sequence,
                log_id=entry.pk,
                version=VERSION,
                digest=digest,
                mac=_mac(sequence, digest, moment),
                sealed_at=moment,
            )
        )
    AccessSeal.objects.bulk_create(links)
    return len(links)


def _waiting(last: AccessSeal | None) -> list[AccessLog]:
    """The next entries to chain: those that were committed late first, then whatever is newer than all that
    is chained, also after the chain has stood still for days."""
    if last is None:
        return list(AccessLog.objects.order_by("pk")[:BATCH])
    newest = AccessSeal.objects.aggregate(newest=Max("log_id"))["newest"]
    late = list(unsealed(since=last.sealed_at - LATE).filter(pk__lt=newest).order_by("pk")[:BATCH])
    newer = AccessLog.objects.filter(pk__gt=newest).order_by("pk")
    return late + list(newer[: BATCH - len(late)])


def unsealed(*, since: datetime | None = None) -> QuerySet[AccessLog]:
    """Entries that have no link, of those begun *since* then."""
    entries = AccessLog.objects.filter(~Exists(AccessSeal.objects.filter(log_id=OuterRef("pk"))))
    return entries if since is None else entries.filter(at__gte=since)


def _last_link() -> AccessSeal | None:
    return AccessSeal.objects.order_by("-sequence").first()


def _digest(version: int, sequence: int, before: str, sealed_at: datetime, entry: AccessLog) -> str:
    columns = [_text(getattr(entry, name)) for name in _COLUMNS[version]]
    content = [version, sequence, before, _text(sealed_at), entry.pk, columns]
    return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode("ascii")).hexdigest()


def _text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="microseconds")
    return None if value is None else str(value)


def _mac(sequence: int, digest: str, sealed_at: datetime, key_id: str | None = None) -> str:
    # With its time, which alone excuses that the links before an anchor are gone.
    ring = encryption_ring()
    key_id = key_id or ring.primary_id
    content = f"{sequence}:{digest}:{_text(sealed_at)}".encode()
    return f"{key_id}:{ring.mac(PURPOSE, content, key_id=key_id).hex()}"


# --- giving out -----------------------------------------------------------------------------------


def entries_of(session_id: UUID) -> Iterator[dict[str, Any]]:
    """The entries about a session, oldest first, in flat memory: each as the chain hashes it, with its link
    and the digest of the link before (None where it was deleted for age). Without the texts of reasons.

    With them the links can be computed anew without a database.
    """
    entries = AccessLog.objects.filter(session_id=session_id).order_by("pk")
    last = 0
    while batch := list(entries.filter(pk__gt=last)[:BATCH]):
        last = batch[-1].pk
        links = {
            link.log_id: link for link in AccessSeal.objects.filter(log_id__in=[row.pk for row in batch])
        }
        numbers = [link.sequence - 1 for link in links.values()]
        before = dict(AccessSeal.objects.filter(pk__in=numbers).values_list("pk", "digest")) | {0: ""}
        for entry in batch:
            link = links.get(entry.pk)
            yield {
                "log_id": entry.pk,
                "entry": {name: _text(getattr(entry, name)) for name in _COLUMNS[VERSION]},
                "link": None
                if link is None
                else {
                    "version": link.version,
                    "sequence": link.sequence,
                    "before": before.get(link.sequence - 1),
                    "sealed_at": _text(link.sealed_at),
                    "digest": link.digest,
                },
            }


# --- keys ---------------------------------------------------------------------------------------


def renewed_mac(link: AccessSeal) -> str | None:
    """The link's MAC under the newest key; None when it is that already.

    Raises :class:`SealBroken` when the present one is wrong, and ``UnknownKey``: a link that cannot be
    verified is not made good by a rotation.
    """
    if link.mac.partition(":")[0] == encryption_ring().primary_id:
        return None
    if not _is_authentic(link):
        raise SealBroken
    return _mac(link.sequence, link.digest, link.sealed_at)


def _is_authentic(link: AccessSeal) -> bool:
    """Raises :class:`UnknownKey`."""
    made = _mac(link.sequence, link.digest, link.sealed_at, link.mac.partition(":")[0])
    return hmac.compare_digest(link.mac, made)


# --- verifying ----------------------------------------------------------------------------------


def verify(
    *,
    heads: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    stop: Callable[[], bool] | None = None,
) -> Verification:
    """Check every link and every entry, in constant memory.

    *heads* were noted elsewhere, each ``sequence:`` and at least 8 digits of the digest. *progress* receives
    the number of links checked and of all links; *stop* is called between batches, and true ends the check.

    Raises ``ValueError`` for a text that is no head.
    """
    wanted = dict(_read_head(text) for text in heads)
    result = Verification()
    times = _EntryTimes()
    total = AccessSeal.objects.count()
    before: AccessSeal | None = None
    for links in _batches():
        entries = AccessLog.objects.in_bulk([link.log_id for link in links])
        result.entries += len(entries)
        for link in links:
            entry = entries.get(link.log_id)
            _verify_link(link, before, entry, result)
            if times.is_backdated(link, entry):
                result.add("backdated", link.sequence, link.log_id)
            if link.sequence in wanted and not link.digest.startswith(wanted.pop(link.sequence)):
                result.add("forged", link.sequence, link.log_id)
            before = link
        result.links += len(links)
        _verify_reasons(entries, result)
        if progress is not None:
            progress(result.links, total)
        if stop is not None and stop():
            return result
    if before is not None:
        result.head = f"{before.sequence}:{before.digest}"
    first = AccessSeal.objects.order_by("sequence").values_list("sequence", flat=True).first() or 0
    for sequence in wanted:
        if sequence >= first:
            result.add("truncated", sequence)
    for log_id in unsealed().filter(at__lt=now() - UNSEALED_AFTER).values_list("pk", flat=True)[:BATCH]:
        result.add("unsealed", None, log_id)
    return result


@dataclass
class _EntryTimes:
    """Finds entries that are older than they can be.

    Links of one run share their time. No entry is much older than the newest entry of earlier runs.
    """

    sealed_at: datetime | None = None
    #: The newest entries of earlier runs, and of the present one.
    earlier: datetime | None = None
    present: datetime | None = None

    def is_backdated(self, link: AccessSeal, entry: AccessLog | None) -> bool:
        """Whether *entry* is too old for its place; call it for each link in order."""
        if self.sealed_at != link.sealed_at:
            self.earlier = max(filter(None, (self.earlier, self.present)), default=None)
            self.sealed_at, self.present = link.sealed_at, None
        if entry is None:
            return False
        self.present = max(filter(None, (self.present, min(entry.at, link.sealed_at))))
        return self.earlier is not None and entry.at < self.earlier - LATE


def _verify_link(
    link: AccessSeal, before: AccessSeal | None, entry: AccessLog | None, result: Verification
) -> None:
    try:
        authentic = _is_authentic(link)
    except UnknownKey:
        result.add("unknown_key", link.sequence, link.log_id)
        authentic = True
    if not authentic:
        result.add("forged", link.sequence, link.log_id)
    if before is None and link.sequence != 1:
        # The anchor: the links before it have been deleted, which only their age allows.
        if link.sealed_at > now() - KEPT_AT_LEAST:
            result.add("gap", link.sequence, link.log_id)
        return
    if before is not None and link.sequence != before.sequence + 1:
        result.add("gap", link.sequence, link.log_id)
        return
    if entry is None:
        result.add("missing", link.sequence, link.log_id)
    elif link.version not in _COLUMNS or not hmac.compare_digest(
        link.digest,
        _digest(link.version, link.sequence, before.digest if before else "", link.sealed_at, entry),
    ):
        result.add("edited", link.sequence, link.log_id)


def _verify_reasons(entries: dict[int, AccessLog], result: Verification) -> None:
    """Compare the reasons that still exist with the digests in their entries; erased ones are no finding."""
    noted = {entry.public_id: entry for entry in entries.values() if entry.reason_digest}
    for reason in AccessReason.objects.filter(public_id__in=list(noted)):
        entry = noted[reason.public_id]
        try:
            genuine = reason_digest(reason.salt, reason.text) == entry.reason_digest
        except SealBroken:
            genuine = False
        if not genuine:
            result.add("reason", None, entry.pk)


def _batches() -> Iterator[list[AccessSeal]]:
    last = 0
    while batch := list(AccessSeal.objects.filter(sequence__gt=last).order_by("sequence")[:BATCH]):
        last = batch[-1].sequence
        yield batch


def _read_head(text: str) -> tuple[int, str]:
    sequence, _, digest = text.strip().partition(":")
    digest = digest.lower()
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 18 or not 8 <= len(digest) <= 64:
        raise ValueError("A head is the number of a link, a colon, and 8 to 64 digits.")
    if not set(digest) <= set("0123456789abcdef"):
        raise ValueError("A head is the number of a link, a colon, and 8 to 64 digits.")
    return int(sequence), digest
