"""The verdict of the demo: compares the sandbox's ledger with the decrypted archive."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from django_faceprint.evidence.files import open_stored
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.privacy.blind_index import blind_index

from .processes import DemoFailed

UPLOADED = "match_image"


@dataclass
class Findings:
    """Numbers of compared files, and every difference as text."""

    expected: int = 0
    archived: int = 0
    bytes_archived: int = 0
    lost: int = 0
    problems: list[str] = field(default_factory=list)


def read_ledger(sandbox_url: str) -> dict[str, Any]:
    """The sandbox's ledger: sessions, files and calls."""
    reply = requests.get(f"{sandbox_url}/_sandbox/ledger", timeout=120)
    if not reply.ok:
        raise DemoFailed(f"The sandbox's ledger answered HTTP {reply.status_code}.")
    ledger: dict[str, Any] = reply.json()
    return ledger


def compare(ledger: dict[str, Any], storage_folder: Path) -> Findings:
    """Read, decrypt and hash every stored file; each file of the ledger must be there exactly once."""
    findings = Findings(lost=MediaAsset.objects.filter(state=MediaAsset.State.LOST).count())
    sessions = {
        session.verify_token_index: session
        for session in VerificationSession.objects.exclude(verify_token_index=None)
    }
    for entry in ledger["sessions"]:
        session = sessions.pop(blind_index("verify_token", entry["verify_token"]), None)
        if session is None:
            findings.problems.append("the sandbox issued a verify_token that no session has")
            continue
        _compare_session(entry, session, findings)
    findings.problems += [f"{session.reference}: unknown to the sandbox" for session in sessions.values()]
    named = MediaAsset.objects.stored().count()
    files = sum(1 for path in storage_folder.rglob("*") if path.is_file())
    if files != named:
        findings.problems.append(f"{files} files are in storage, but rows refer to {named}")
    if findings.lost:
        findings.problems.append(f"{findings.lost} files were not archived in time")
    return findings


def _compare_session(entry: dict[str, Any], session: VerificationSession, findings: Findings) -> None:
    expected = Counter(
        item["sha256"] for item in entry["assets"] if item["kind"] != UPLOADED and item["available_from"]
    )
    findings.expected += len(expected)
    stored: Counter[str] = Counter()
    for asset in session.assets.stored():
        digest = _digest_of_stored(asset)
        if digest != asset.sha256:
            findings.problems.append(f"{session.reference}: {asset.kind} has another hash than its row")
        findings.archived += 1
        findings.bytes_archived += asset.size or 0
        if asset.source != MediaAsset.Source.UPLOAD:
            stored[digest] += 1
    for digest in expected:
        if digest not in stored:
            kinds = {item["kind"] for item in entry["assets"] if item["sha256"] == digest}
            findings.problems.append(
                f"{session.reference}: {'/'.join(kinds)} of the ledger is not in storage"
            )
    for digest, count in stored.items():
        if digest not in expected:
            findings.problems.append(f"{session.reference}: a stored file is not in the ledger")
        elif count > 1:
            findings.problems.append(f"{session.reference}: the same file is stored {count} times")


def _digest_of_stored(asset: MediaAsset) -> str:
    digest = hashlib.sha256()
    with open_stored(asset) as reader:
        for chunk in reader.iter_range(0, asset.size or 0):
            digest.update(chunk)
    return digest.hexdigest()
