from __future__ import annotations

import hashlib
import io
import os
import tracemalloc
import uuid
from collections.abc import Iterator
from typing import IO, Any

import pytest
from django.core.files import File
from django.core.files.storage import FileSystemStorage, InMemoryStorage
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_faceprint.privacy.files import (
    CHUNK_BYTES,
    HEADER_BYTES,
    DecryptingReader,
    EncryptingStream,
    new_file_key,
    rewrap_file_key,
    sealed_size,
    unwrap_file_key,
    wrap_file_key,
)
from django_faceprint.privacy.keys import SealBroken, UnknownKey, generate_key

ASSET = uuid.UUID("0190c0de-0000-7000-8000-000000000001")
KEY = bytes(range(32))
SEALED_CHUNK = CHUNK_BYTES + 16
EDGES = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES + 17]
PLAIN = os.urandom(3 * CHUNK_BYTES + 17)
sizes = st.one_of(st.sampled_from(EDGES), st.integers(0, len(PLAIN)))


def encrypt(plain: bytes, *, key: bytes = KEY, asset: uuid.UUID = ASSET) -> bytes:
    return b"".join(EncryptingStream([plain], key, asset))


def reader(data: bytes, plain_size: int, *, key: bytes = KEY, asset: uuid.UUID = ASSET) -> DecryptingReader:
    return DecryptingReader(io.BytesIO(data), key, asset, plain_size)


SEALED = encrypt(PLAIN)


@given(size=sizes, data=st.data())
@hypothesis_settings(max_examples=60, deadline=None)
def test_round_trip_from_chunks_of_any_size(size: int, data: st.DataObject) -> None:
    plain = PLAIN[:size]
    cuts = sorted(data.draw(st.lists(st.integers(0, size), max_size=6)))
    kinds = data.draw(st.lists(st.sampled_from([bytes, bytearray, memoryview]), min_size=7, max_size=7))
    chunks = [
        kind(plain[start:end]) for kind, start, end in zip(kinds, [0, *cuts], [*cuts, size], strict=False)
    ]
    stream = EncryptingStream(chunks, KEY, ASSET)
    sealed = b"".join(stream)
    assert stream.plain_size == size
    assert stream.sha256 == hashlib.sha256(plain).hexdigest()
    assert len(sealed) == sealed_size(size)
    assert reader(sealed, size).read() == plain


@given(st.data())
@hypothesis_settings(max_examples=100, deadline=None)
def test_ranges_are_slices(data: st.DataObject) -> None:
    points = st.one_of(st.sampled_from([e for e in EDGES if e <= len(PLAIN)]), st.integers(0, len(PLAIN)))
    start, end = sorted((data.draw(points), data.draw(points)))
    pieces = list(reader(SEALED, len(PLAIN)).iter_range(start, end))
    assert b"".join(pieces) == PLAIN[start:end]
    assert all(0 < len(piece) <= CHUNK_BYTES for piece in pieces)


@pytest.mark.parametrize("size", EDGES)
def test_edges(size: int) -> None:
    plain = PLAIN[:size]
    sealed = encrypt(plain)
    opened = reader(sealed, size)
    assert b"".join(opened.iter_range(0, size)) == plain
    assert b"".join(opened.iter_range(size, size)) == b""
    assert opened.read() == plain
    with pytest.raises(ValueError, match="range"):
        opened.iter_range(0, size + 1)
    with pytest.raises(ValueError, match="range"):
        opened.iter_range(-1, 0)


def test_nothing_of_the_plaintext_is_in_the_file() -> None:
    plain = b"11010519491231002X" * 10_000
    sealed = encrypt(plain)
    assert b"11010519" not in sealed
    assert encrypt(plain) != sealed  # even with the same key


def test_producers_may_reuse_their_buffer() -> None:
    def produce() -> Iterator[bytearray]:
        buffer = bytearray(CHUNK_BYTES)
        for number in range(4):
            buffer[:] = bytes([number]) * CHUNK_BYTES
            yield buffer
            buffer[:] = b"\xff" * CHUNK_BYTES

    sealed = b"".join(EncryptingStream(produce(), KEY, ASSET))
    expected = b"".join(bytes([number]) * CHUNK_BYTES for number in range(4))
    assert reader(sealed, len(expected)).read() == expected


# Tampering


@given(st.data())
@hypothesis_settings(max_examples=100, deadline=None)
def test_any_flipped_bit_is_found(data: st.DataObject) -> None:
    changed = bytearray(SEALED)
    bit = data.draw(st.integers(0, len(SEALED) * 8 - 1))
    changed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SealBroken) as caught:
        reader(bytes(changed), len(PLAIN)).read()
    assert caught.value.__context__ is None


@given(st.integers(0, len(SEALED) - 1))
@hypothesis_settings(max_examples=60, deadline=None)
def test_truncation_is_found_before_a_byte_is_returned(length: int) -> None:
    with pytest.raises(SealBroken):
        next(reader(SEALED[:length], len(PLAIN)).iter_range(0, 1))


def test_truncation_together_with_the_row_is_found() -> None:
    for chunks in range(4):
        cut = SEALED[: HEADER_BYTES + chunks * SEALED_CHUNK]
        for plain_size in {chunks * CHUNK_BYTES, max(0, chunks * CHUNK_BYTES - 16)}:
            with pytest.raises(SealBroken):
                reader(cut, plain_size).read()


def test_extension_is_found() -> None:
    for tail in (b"\0", SEALED[-33:], SEALED[HEADER_BYTES:]):
        with pytest.raises(SealBroken):
            reader(SEALED + tail, len(PLAIN)).read()
        with pytest.raises(SealBroken):
            reader(SEALED + tail, len(PLAIN) + max(0, len(tail) - 16)).read()


def test_another_length_in_the_row_is_found() -> None:
    for plain_size in (0, 1, len(PLAIN) - 1, len(PLAIN) + 1, CHUNK_BYTES, 10 * CHUNK_BYTES):
        with pytest.raises(SealBroken):
            next(reader(SEALED, plain_size).iter_range(0, min(plain_size, 1)), None)


def test_reordered_repeated_and_exchanged_chunks_are_found() -> None:
    def chunks(data: bytes) -> list[bytes]:
        body = data[HEADER_BYTES:]
        return [body[i : i + SEALED_CHUNK] for i in range(0, len(body), SEALED_CHUNK)]

    header, (a, b, c, last) = SEALED[:HEADER_BYTES], chunks(SEALED)
    other = encrypt(PLAIN)
    variants = [(b, a, c, last), (a, a, c, last), (a, c, b, last), (a, chunks(other)[1], c, last)]
    for variant in variants:
        with pytest.raises(SealBroken):
            reader(header + b"".join(variant), len(PLAIN)).read()
    with pytest.raises(SealBroken):
        reader(other[:HEADER_BYTES] + SEALED[HEADER_BYTES:], len(PLAIN)).read()


def test_other_keys_and_other_assets_do_not_open() -> None:
    with pytest.raises(SealBroken):
        reader(SEALED, len(PLAIN), key=new_file_key()).read()
    with pytest.raises(SealBroken):
        reader(SEALED, len(PLAIN), asset=uuid.uuid4()).read()
    with pytest.raises(SealBroken):
        reader(b"GIF89a" * 100_000, len(PLAIN)).read()
    with pytest.raises(ValueError, match="32 bytes"):
        b"".join(EncryptingStream([b""], b"short", ASSET))


# Streams


def test_size_and_hash_are_known_only_at_the_end() -> None:
    stream = EncryptingStream([PLAIN], KEY, ASSET)
    parts = iter(stream)
    next(parts)
    for attribute in ("plain_size", "sha256"):
        with pytest.raises(RuntimeError):
            getattr(stream, attribute)
    assert sum(1 for _ in parts) == 4
    assert stream.plain_size == len(PLAIN)
    with pytest.raises(RuntimeError):
        iter(stream)


def test_a_failing_source_passes_through_and_leaves_no_whole_file() -> None:
    def produce() -> Iterator[bytes]:
        yield PLAIN[: 2 * CHUNK_BYTES]
        raise ConnectionError("gone")

    stream = EncryptingStream(produce(), KEY, ASSET)
    written: list[bytes] = []
    with pytest.raises(ConnectionError):
        written.extend(stream)
    written.extend(stream._parts)
    with pytest.raises(RuntimeError):
        _ = stream.sha256
    with pytest.raises(SealBroken):
        reader(b"".join(written), CHUNK_BYTES).read()


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=10))
@hypothesis_settings(max_examples=30, deadline=None)
def test_read(amounts: list[int]) -> None:
    stream = EncryptingStream([PLAIN], KEY, ASSET)
    out = bytearray()
    for amount in amounts:
        piece = stream.read(amount)
        assert len(piece) == min(amount, sealed_size(len(PLAIN)) - len(out))
        out += piece
    out += stream.read()
    assert stream.read(1) == b""
    assert reader(bytes(out), len(PLAIN)).read() == PLAIN


def test_is_a_file_as_storages_want_it() -> None:
    stream = EncryptingStream([PLAIN], KEY, ASSET)
    assert stream.readable()
    assert not stream.seekable()
    assert not stream.writable()
    assert stream.size is None
    assert stream.name
    assert stream.multiple_chunks()
    states = [stream.closed]
    stream.close()
    states.append(stream.closed)
    assert states == [False, True]
    with pytest.raises(ValueError, match="closed"):
        stream.read()


@pytest.mark.parametrize("wrap", [File, lambda stream: stream])
def test_saved_by_storages(tmp_path: Any, wrap: Any) -> None:
    for storage in (FileSystemStorage(location=tmp_path), InMemoryStorage()):
        stream = EncryptingStream([PLAIN], KEY, ASSET)
        name = storage.save("ab/cd", wrap(stream))
        assert stream.sha256 == hashlib.sha256(PLAIN).hexdigest()
        with storage.open(name) as file:
            opened = DecryptingReader(file, KEY, ASSET, stream.plain_size)
            assert opened.read() == PLAIN


def test_memory_is_flat() -> None:
    piece = os.urandom(CHUNK_BYTES)
    peaks = []
    for count in (16, 256):
        tracemalloc.start()
        for part in EncryptingStream((piece[:60_000] for _ in range(count)), KEY, ASSET):
            del part
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 64 * 1024
    assert peaks[1] < 2 * 1024 * 1024


# Reading


class Counting(io.BytesIO):
    """Counts the bytes that are read."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def test_only_needed_chunks_are_read() -> None:
    file = Counting(SEALED)
    opened = DecryptingReader(file, KEY, ASSET, len(PLAIN))
    list(opened.iter_range(CHUNK_BYTES + 5, CHUNK_BYTES + 6))
    last = 17 + 16
    assert file.count == HEADER_BYTES + last + SEALED_CHUNK
    list(opened.iter_range(CHUNK_BYTES + 9, CHUNK_BYTES + 20))
    assert file.count == HEADER_BYTES + last + SEALED_CHUNK


def test_files_that_read_less_than_asked_for() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 1000) if size != -1 else -1)

    assert DecryptingReader(Slow(SEALED), KEY, ASSET, len(PLAIN)).read() == PLAIN


def test_is_a_seekable_file() -> None:
    file: IO[bytes] = io.BufferedReader(reader(SEALED, len(PLAIN)), 4096)
    assert file.read(10) == PLAIN[:10]
    assert file.seek(-20, io.SEEK_END) == len(PLAIN) - 20
    assert file.read() == PLAIN[-20:]
    assert file.read(1) == b""
    file.seek(CHUNK_BYTES - 5)
    assert file.read(10) == PLAIN[CHUNK_BYTES - 5 : CHUNK_BYTES + 5]
    file.seek(len(PLAIN) + 5)
    assert file.read(1) == b""
    with reader(SEALED, len(PLAIN)) as raw:
        assert raw.readall() == PLAIN
        assert raw.tell() == len(PLAIN)
        raw.seek(-1, io.SEEK_CUR)
        assert raw.read(5) == PLAIN[-1:]
        with pytest.raises(ValueError, match="before the start"):
            raw.seek(-1)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        reader(SEALED, -1)


def test_closing_closes_the_file() -> None:
    file = io.BytesIO(SEALED)
    with DecryptingReader(file, KEY, ASSET, len(PLAIN)):
        pass
    assert file.closed


def test_reprs_hide_the_key() -> None:
    for thing in (EncryptingStream([b"plaintext"], KEY, ASSET), reader(SEALED, 5)):
        assert repr(KEY) not in repr(thing)
        assert "plaintext" not in repr(thing)


# Keys of files


def test_wrapped_keys(settings: Any) -> None:
    key = new_file_key()
    assert len(key) == 32
    assert key != new_file_key()
    wrapped = wrap_file_key(key, ASSET)
    assert key not in wrapped
    assert unwrap_file_key(wrapped, ASSET) == key
    with pytest.raises(SealBroken):
        unwrap_file_key(wrapped, uuid.uuid4())
    old, new = settings.FACEPRINT["ENCRYPTION_KEYS"], [generate_key()]
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": new + old}
    rewrapped = rewrap_file_key(wrapped, ASSET)
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": new}
    assert unwrap_file_key(rewrapped, ASSET) == key
    with pytest.raises(UnknownKey):
        unwrap_file_key(wrapped, ASSET)


def test_the_format_is_frozen() -> None:
    # Written by the first release; a change here makes every archived file unreadable.
    stored = bytes.fromhex(
        "444650460100010000f6811e0d89730ce7b4aaefb68b80742fdbacc8392ca571b78c02130b1b1938065ef228221342a334d2"
    )
    assert reader(stored, 9).read() == b"synthetic"
