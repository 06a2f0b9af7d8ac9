"""The verdict: compares the sandbox's ledger with the archive. Takes plain data, returns findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

UPLOADED = "match_image"
#: Examples per kind of finding.
MAX_EXAMPLES = 10


@dataclass(frozen=True)
class StoredFile:
    """A file that is archived by its row. ``digest``: SHA-256 of the decrypted bytes; None if unreadable."""

    kind: str
    attempt: int
    position: int
    name: str
    sha256: str
    digest: str | None


@dataclass(frozen=True)
class ArchivedSession:
    """A session as it is in our database and storage."""

    reference: str
    verdict: str
    archive_state: str
    files: tuple[StoredFile, ...] = ()
    attempts: tuple[int, ...] = ()
    outstanding: bool = False


@dataclass
class Findings:
    """Numbers of files that were compared, and of everything that is wrong."""

    expected: int = 0
    archived: int = 0
    lost: int = 0
    duplicates: int = 0
    half: int = 0
    wrong_hash: int = 0
    orphans: int = 0
    missing_files: int = 0
    strangers: int = 0
    wrong_verdicts: int = 0
    unfinished: int = 0
    tokens_never_received: int = 0
    served: int = 0
    examples: list[str] = field(default_factory=list)
    #: References of sessions with lost files.
    losers: list[str] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, kind: str, text: str) -> None:
        """Count a finding; *kind* is a field of this class."""
        setattr(self, kind, getattr(self, kind) + 1)
        self._counts[kind] += 1
        if self._counts[kind] <= MAX_EXAMPLES:
            self.examples.append(f"{kind}: {text}")

    @property
    def broken(self) -> int:
        """Number of findings that no order of work explains: all but the lost files."""
        files = self.duplicates + self.half + self.wrong_hash + self.orphans + self.missing_files
        return files + self.strangers + self.wrong_verdicts + self.unfinished


def judge(
    ledger: Mapping[str, Any],
    archived: Mapping[str, ArchivedSession],
    on_disk: Iterable[str],
    expected_verdicts: Mapping[str, str],
) -> Findings:
    """Compare the sandbox's *ledger* with the *archived* session of each verify_token.

    *on_disk*: the names of all files in storage; *expected_verdicts*: the right verdict of each reference.
    """
    findings = Findings()
    left = dict(archived)
    for entry in ledger["sessions"]:
        mine = left.pop(entry["verify_token"], None)
        if mine is not None:
            _judge_session(entry, mine, findings)
        elif entry["attempts"]:
            findings.add("strangers", "a person finished with a verify_token that no session has")
        else:
            # The answer with it was lost; the session got another one.
            findings.tokens_never_received += 1
    for mine in left.values():
        findings.add("strangers", f"{mine.reference}: its verify_token is unknown to the sandbox")
    _judge_ends(archived.values(), expected_verdicts, findings)
    _judge_disk([file.name for mine in archived.values() for file in mine.files], on_disk, findings)
    return findings


def _judge_session(entry: Mapping[str, Any], mine: ArchivedSession, findings: Findings) -> None:
    whole: Counter[tuple[str, str]] = Counter()
    for file in mine.files:
        findings.archived += 1
        if file.digest is None:
            findings.add("half", f"{mine.reference}: {file.kind} cannot be read back whole")
            continue
        if file.digest != file.sha256:
            findings.add("wrong_hash", f"{mine.reference}: {file.kind} has another hash than its row")
            continue
        whole[file.kind, file.digest] += 1
    for item in entry["assets"]:
        findings.served += item["served"]
        findings.expected += 1
        found = whole.pop((item["kind"], item["sha256"]), 0)
        if not found:
            findings.add("lost", f"{mine.reference}: {item['kind']}, fetched {item['served']} times")
            if mine.reference not in findings.losers[-1:]:
                findings.losers.append(mine.reference)
        elif found > 1:
            findings.add("duplicates", f"{mine.reference}: {item['kind']} is stored {found} times")
    for kind, _ in whole:
        findings.add("wrong_hash", f"{mine.reference}: a stored {kind} is not in the ledger")
    orders = [attempt["order"] for attempt in entry["attempts"]]
    if len(set(mine.attempts)) != len(mine.attempts) or set(mine.attempts) - set(orders):
        findings.add("duplicates", f"{mine.reference}: attempts {mine.attempts}, in the ledger {orders}")


def _judge_ends(archived: Iterable[ArchivedSession], expected: Mapping[str, str], findings: Findings) -> None:
    references: Counter[str] = Counter()
    for mine in archived:
        references[mine.reference] += 1
        if mine.outstanding:
            findings.add("unfinished", f"{mine.reference}: {mine.verdict}, {mine.archive_state}")
        if mine.verdict != expected.get(mine.reference):
            findings.add(
                "wrong_verdicts", f"{mine.reference}: {mine.verdict}, not {expected.get(mine.reference)}"
            )
    for reference, count in references.items():
        if count > 1:
            findings.add("duplicates", f"{reference}: {count} sessions")
    for reference in expected.keys() - references.keys():
        findings.add("unfinished", f"{reference}: has no session")


def _judge_disk(referred: list[str], on_disk: Iterable[str], findings: Findings) -> None:
    names = Counter(referred)
    present = set(on_disk)
    for name, count in names.items():
        if count > 1:
            findings.add("duplicates", f"{count} rows refer to one file")
        if name not in present:
            findings.add("missing_files", "a row refers to a file that is not there")
    for _ in present - names.keys():
        findings.add("orphans", "nothing refers to a file in storage")
