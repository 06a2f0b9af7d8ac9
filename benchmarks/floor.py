"""The floor: the engine's work on a session by the shortest path, the limit that the engine is measured by.

The same five POSTs and six GETs, the same checks of pictures and videos, hashes, encrypted files and final
rows, which the product reads. Left out: leases, upload intents, retries, rate limits, thumbnails, and model
instances between an answer and its row. ``python -m benchmarks.floor NUMBER PROCESSES``, started as a
:class:`.workspace.Worker`, archives the sessions whose key divided by PROCESSES leaves NUMBER. PostgreSQL
only.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import threading
import time
from binascii import a2b_base64
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from django_faceprint.clock import now
from django_faceprint.evidence.media_types import VideoInspector, describe_image
from django_faceprint.privacy.blind_index import blind_index
from django_faceprint.privacy.keys import KeyRing, encryption_ring

from .project import Project, set_up
from .upstream import ANSWERS
from .workspace import answer, measured, wait_for_go

if TYPE_CHECKING:
    import psycopg
    import urllib3

#: Sessions whose rows are written in one transaction, as in the engine.
COMMIT_BATCH = 16
#: Bytes of one chunk of an encrypted file, and of one read of a download: whole chunks.
CHUNK = 64 * 1024
PIECE = 4 * CHUNK
BEIJING = ZoneInfo("Asia/Shanghai")
JSON_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
ENDPOINTS = {
    "detail": "result_detail",
    "getall": "result_getall",
    "simple": "result_simple",
    "media": "result_media_query",
    "stat": "result_stat",
}

ASSETS, ANSWER_ROWS = "faceprint_mediaasset", "faceprint_upstreamanswer"
ATTEMPTS, CALLS = "faceprint_verificationattempt", "faceprint_upstreamcall"
#: Every column of the rows that are inserted, but their keys.
COLUMNS = {
    ASSETS: (
        *("public_id", "session_id", "attempt_order", "kind", "position", "state", "reason", "source"),
        *("deadline", "give_up_at", "sha256", "size", "content_type", "width", "height", "duration"),
        *("plain_http", "stored_name", "wrapped_key", "thumbnail", "tries", "error_class"),
        *("error_detail", "named_at", "ext_info", "created_at", "archived_at", "retain_until"),
    ),
    ANSWER_ROWS: (
        *("public_id", "session_id", "endpoint", "body", "body_index", "log_id", "code", "parsed"),
        *("oddities", "received_at"),
    ),
    ATTEMPTS: (
        *("session_id", "order", "passed", "code", "message", "verified_at", "score", "threshold"),
        *("liveness_score", "spoofing_score", "risk_level", "risk_tag", "is_demoted", "is_charged"),
        *("charge_type", "verify_log_id"),
    ),
    CALLS: (
        *("environment", "application", "endpoint", "outcome", "code", "log_id", "http_status", "latency"),
        *("session_id", "at"),
    ),
}
#: Columns of the session that are set, in the order of ``SessionArchive.updated``.
UPDATED = (
    *("verdict", "archive_state", "score", "liveness_score", "spoofing_score", "threshold", "is_demoted"),
    *("name_index", "number_index", "confirmed", "stat", "verified_at", "decided_at", "archived_at"),
    *("retain_until", "last_polled_at"),
    *(f"{step}_answered_at" for step in ("getall", "simple", "media", "stat")),
)
UPDATE = (
    f"UPDATE faceprint_verificationsession SET {', '.join(f'{name} = %s' for name in UPDATED)}, "  # noqa: S608
    "wake_at = NULL, priority_at = NULL, next_deadline = NULL, later_deadline = NULL, last_deadline = NULL, "
    "poll_count = poll_count + 1 WHERE id = %s"
)
SELECT = (
    "SELECT id, public_id, environment, application, verify_token, media_give_up_at, results_give_up_at "
    "FROM faceprint_verificationsession WHERE verdict = 'pending' AND id %% %s = %s"
)


class Session(NamedTuple):
    """What is read of a session's row; *verify_token* is sealed."""

    pk: int
    public_id: UUID
    environment: str
    application: str
    verify_token: bytes
    media_give_up_at: datetime
    results_give_up_at: datetime


class Stored(NamedTuple):
    """A written file: its columns in the asset's row."""

    name: str
    wrapped_key: bytes
    sha256: str
    size: int


def seal_column(ring: KeyRing, label: str, row: UUID, text: str) -> bytes:
    """An encrypted column's value as docs/en/formats.md has it."""
    return ring.seal(f"field/{label}", text.encode(), label.encode() + b"\0" + row.bytes)


def open_column(ring: KeyRing, label: str, row: UUID, sealed: bytes) -> str:
    """The text of such a value."""
    return ring.open(f"field/{label}", sealed, label.encode() + b"\0" + row.bytes).decode()


def store(ring: KeyRing, folder: str, file_id: UUID, size: int, pieces: Iterable[bytes]) -> Stored:
    """Write *pieces*, *size* bytes together, encrypted in the published format below *folder*.

    Each piece but the last one has a multiple of :data:`CHUNK` bytes. Raises ``ValueError`` when they have
    another size.
    """
    key, salt, name = os.urandom(32), os.urandom(16), secrets.token_hex(20)
    encrypt = AESGCM(HKDF(SHA256(), 32, salt, b"django-faceprint/1/file").derive(key)).encrypt
    chunk_size = CHUNK.to_bytes(4, "big")
    associated = b"\x01" + file_id.bytes + chunk_size
    digest = hashlib.sha256()
    position = 0
    place = f"{folder}/{name[:2]}/{name[2:4]}"
    os.makedirs(place, 0o700, exist_ok=True)
    file = os.open(f"{place}/{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        _write(file, [b"DFPF\x01" + chunk_size + salt])
        for piece in pieces:
            digest.update(piece)
            view = memoryview(piece)
            sealed = []
            for start in range(0, len(piece), CHUNK):
                number, chunk = position // CHUNK, view[start : start + CHUNK]
                position += len(chunk)
                nonce = number.to_bytes(11, "big") + bytes([position == size])
                sealed.append(encrypt(nonce, chunk, associated))
            _write(file, sealed)
    finally:
        os.close(file)
    if position != size:
        raise ValueError(f"{position} bytes instead of {size}.")
    wrapped_key = ring.seal("file key", key, file_id.bytes)
    return Stored(f"{name[:2]}/{name[2:4]}/{name}", wrapped_key, digest.hexdigest(), size)


def _write(file: int, parts: Sequence[bytes]) -> None:
    if os.writev(file, parts) != sum(map(len, parts)):
        raise OSError("The file was not written whole.")


class Shared(NamedTuple):
    """What all sessions of a process share."""

    folder: str
    #: Upstream's address, with which every URL of a file must begin.
    address: str
    pool: urllib3.HTTPConnectionPool
    #: Read once: the product reads its settings for each value.
    ring: KeyRing
    #: How long files of each kind are kept, and how long records; None: for ever.
    spans: dict[str, timedelta | None]
    record_span: timedelta | None


class SessionArchive:
    """Archives one session whose person has passed; ``rows`` and ``updated`` are for the caller to write."""

    def __init__(self, shared: Shared, session: Session) -> None:
        self._shared = shared
        self._session = session
        #: Rows to insert, by table.
        self.rows: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
        #: Parameters of :data:`UPDATE`.
        self.updated: tuple[Any, ...] = ()
        self._decided_at = self._verified_at = now()

    def run(self) -> None:
        """Ask, fetch and store."""
        session, ring, asked_at = self._session, self._shared.ring, now()
        token = open_column(ring, "session.verify_token", session.public_id, session.verify_token)
        question = json.dumps({"verify_token": token}).encode("ascii")
        documents = {name: self._ask(name, question) for name in ENDPOINTS}
        self._decided_at = now()
        result, media = documents["detail"]["result"], documents["media"]["result"]
        attempt = documents["getall"]["result"]["verify_result"][0]
        self._verified_at = datetime.fromisoformat(attempt["verify_time"]).replace(tzinfo=BEIJING)

        self._store_cards(result, attempt)
        self._fetch("face", 0, documents["simple"]["result"]["image"])
        for kind, urls in (("process_video", media["processVideo"]), ("frame", media["images"])):
            for position, url in enumerate(urls):
                self._fetch(kind, position, url)
        for name, document in documents.items():
            self._keep_answer(name, document)
        self._keep_attempt(attempt)
        scores, person = result["verify_result"], result["idcard_confirm"]
        confirmed = {"name": person["name"], "number": person["idcard_number"]}
        self.updated = (
            *("passed", "complete", scores["score"], scores["liveness_score"], scores["spoofing"]),
            *(attempt["verify_detail"]["threshold"], result["is_demote"]),
            *(blind_index("name", confirmed["name"]), blind_index("id_number", confirmed["number"])),
            seal_column(ring, "session.confirmed", session.public_id, _compact(confirmed)),
            *(json.dumps(documents["stat"]["result"]), self._verified_at, self._decided_at, now()),
            *(self._after(self._shared.record_span), asked_at),
            *([self._decided_at] * 4),
            session.pk,
        )

    def _ask(self, name: str, question: bytes) -> dict[str, Any]:
        started = time.monotonic()
        path = f"{ANSWERS[name]}?access_token=24.benchmark"
        response = self._shared.pool.urlopen(
            "POST", path, body=question, headers=JSON_HEADERS, retries=False, redirect=False
        )
        latency = time.monotonic() - started
        document: dict[str, Any] = json.loads(response.data)
        if response.status != 200 or document.get("success") is not True:
            raise RuntimeError(f"{name}: HTTP status {response.status}")
        session = self._session
        self.rows[CALLS].append(
            (
                *(session.environment, session.application, ENDPOINTS[name], "ok", "", document["log_id"]),
                *(response.status, latency, session.pk, now()),
            )
        )
        return document

    def _store_cards(self, result: dict[str, Any], attempt: dict[str, Any]) -> None:
        """Store the card pictures of both answers, which are the same, and cut them out of the answers."""
        pictures = result["idcard_images"]
        if pictures != attempt["idcard_images"]:
            raise RuntimeError("Two answers of a session have different card pictures.")
        removed = {}
        for kind, name in (("id_front", "front_base64"), ("id_back", "back_base64")):
            data = a2b_base64(pictures[name])
            file_id, digest = self._store(kind, 0, len(data), [data], plain_http=False)
            removed[name] = {"removed": "picture", "sha256": digest, "asset": str(file_id)}
        result["idcard_images"] = attempt["idcard_images"] = removed

    def _fetch(self, kind: str, position: int, url: str) -> None:
        path = url.removeprefix(self._shared.address)
        response = self._shared.pool.urlopen(
            "GET", path, retries=False, redirect=False, preload_content=False, decode_content=False
        )
        if response.status != 200:
            raise RuntimeError(f"{kind}: HTTP status {response.status}")
        size = int(response.headers["Content-Length"])
        pieces = iter(partial(response.read, PIECE), b"")
        self._store(kind, position, size, pieces, plain_http=self._shared.address.startswith("http://"))
        response.release_conn()

    def _store(
        self, kind: str, position: int, size: int, pieces: Iterable[bytes], *, plain_http: bool
    ) -> tuple[UUID, str]:
        """Check and store one file; its identity and its SHA-256."""
        from django_faceprint.models.identifiers import time_ordered_uuid

        file_id = time_ordered_uuid()
        if kind == "process_video":
            inspector = VideoInspector()
            stored = store(self._shared.ring, self._shared.folder, file_id, size, _fed(inspector, pieces))
            video = inspector.facts()
            facts = (video.content_type, video.width, video.height, video.duration)
        else:
            data = b"".join(pieces)
            picture = describe_image(data)
            facts = (picture.content_type, picture.width, picture.height, None)
            stored = store(self._shared.ring, self._shared.folder, file_id, size, [data])
        session, moment = self._session, now()
        is_recording = kind in ("process_video", "frame")
        source = {"face": "result_simple", "id_front": "result_detail", "id_back": "result_detail"}
        self.rows[ASSETS].append(
            (
                *(file_id, session.pk, 0, kind, position, "stored", ""),
                source.get(kind, "result_media_query"),
                self._verified_at + timedelta(hours=24 if is_recording else 72),
                session.media_give_up_at if is_recording else session.results_give_up_at,
                *(stored.sha256, stored.size, *facts, plain_http, stored.name, stored.wrapped_key),
                *(None, 0, "", "", self._decided_at if is_recording else None, ""),
                *(self._decided_at, moment, self._after(self._shared.spans[kind])),
            )
        )
        return file_id, stored.sha256

    def _keep_answer(self, name: str, document: dict[str, Any]) -> None:
        from django_faceprint.evidence.answers import content_index
        from django_faceprint.models.identifiers import time_ordered_uuid

        answer_id = time_ordered_uuid()
        body, log_id = json.dumps(document, ensure_ascii=False), document["log_id"]
        self.rows[ANSWER_ROWS].append(
            (
                *(answer_id, self._session.pk, ENDPOINTS[name]),
                seal_column(self._shared.ring, "answer.body", answer_id, body),
                *(content_index(body, log_id), log_id, "", True, "[]", now()),
            )
        )

    def _keep_attempt(self, attempt: dict[str, Any]) -> None:
        detail = attempt["verify_detail"]
        self.rows[ATTEMPTS].append(
            (
                *(self._session.pk, attempt["order"], attempt["is_verify_passed"], str(attempt["code"])),
                *(attempt["message"], self._verified_at, detail["score"], detail["threshold"]),
                *(detail["liveness_score"], None, detail["risk_level"], "", None, None, "", ""),
            )
        )

    def _after(self, span: timedelta | None) -> datetime | None:
        return None if span is None else self._decided_at + span


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _fed(inspector: Any, pieces: Iterable[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        inspector.feed(piece)
        yield piece


class Writer:
    """Writes the rows of finished sessions, :data:`COMMIT_BATCH` in a transaction, from any thread."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._connection_guard = threading.Lock()
        self._guard = threading.Lock()
        self._finished: list[SessionArchive] = []

    def add(self, finished: SessionArchive) -> None:
        """Have *finished* written, soon or at once."""
        with self._guard:
            self._finished.append(finished)
            if len(self._finished) < COMMIT_BATCH:
                return
            batch, self._finished = self._finished, []
        self._write(batch)

    def flush(self) -> None:
        """Write what is left."""
        batch, self._finished = self._finished, []
        if batch:
            self._write(batch)

    def _write(self, batch: Sequence[SessionArchive]) -> None:
        with self._connection_guard, self._connection.transaction(), self._connection.cursor() as cursor:
            for table, columns in COLUMNS.items():
                names = ", ".join(f'"{name}"' for name in columns)
                with cursor.copy(f"COPY {table} ({names}) FROM STDIN".encode()) as copy:
                    for archive in batch:
                        for row in archive.rows[table]:
                            copy.write_row(row)
            cursor.executemany(UPDATE.encode(), [archive.updated for archive in batch])


def main() -> None:
    """Wait for "go", archive this process's share, answer."""
    number, processes = map(int, sys.argv[1:])
    set_up()
    import psycopg
    import urllib3

    from django_faceprint.models import MediaAsset

    from .sessions import plan

    project, rules = Project.from_environment(), plan()
    database = project.database
    options: dict[str, Any] = {"ca_certs": project.authorities} if project.authorities else {}
    with (
        urllib3.connection_from_url(project.api_url, maxsize=project.concurrency, **options) as pool,
        psycopg.connect(
            host=database["HOST"], port=database["PORT"], user=database["USER"], dbname=database["NAME"]
        ) as connection,
    ):
        spans = {kind: rules.span_of(kind) for kind in MediaAsset.Kind.values}
        shared = Shared(
            *(project.archive, project.api_url, pool, encryption_ring(), spans, rules.record_span)
        )
        writer = Writer(connection)

        def archive(session: Session) -> None:
            one = SessionArchive(shared, session)
            one.run()
            writer.add(one)

        def work() -> dict[str, float]:
            sessions = [Session(*row) for row in connection.execute(SELECT.encode(), (processes, number))]
            connection.commit()
            if project.concurrency == 1:
                for session in sessions:
                    archive(session)
            else:
                with ThreadPoolExecutor(project.concurrency) as threads:
                    for _ in threads.map(archive, sessions):
                        pass
            writer.flush()
            return {"sessions": len(sessions), "failures": 0}

        wait_for_go()
        answer(measured(work))


if __name__ == "__main__":
    main()
