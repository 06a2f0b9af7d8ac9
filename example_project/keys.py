"""Keys that the site generates on a laptop, once."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

KEY_BYTES = 32


def private_folder(path: Path) -> Path:
    """Make a folder with access for its owner alone, if it does not exist.

    Raises ImproperlyConfigured, with the remedy, when that fails.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{path} cannot be made ({error.strerror}). Set FACEPRINT_VAR to a folder that you can write."
        ) from None
    return path


def key_from_file(path: Path) -> str:
    """The key in this file; generated from 32 random bytes (urlsafe base64) when there is no file.

    Web site, worker and beat may start at the same moment: the key is written aside and linked into
    place, so the first one wins and no process reads half a key. The file has mode 0600.
    """
    private_folder(path.parent)
    try:
        if not path.exists():
            _generate(path)
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise ImproperlyConfigured(f"The key file {path} cannot be read or written.") from None
    if not key:
        raise ImproperlyConfigured(f"The key file {path} is empty.")
    return key


def _generate(path: Path) -> None:
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii") + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(aside, path)
        except FileExistsError:
            return  # another process was first
    finally:
        aside.unlink()
