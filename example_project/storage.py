"""``FACEPRINT_STORAGE``: the URL of the storage for encrypted files."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured

S3_OPTIONS = frozenset({"addressing_style", "endpoint_url", "region_name", "signature_version"})


def storage_from_url(url: str) -> dict[str, Any]:
    """Turn the URL into an entry of ``STORAGES``.

    ``file:///absolute/folder``: files for the owner alone, without a URL.
    ``s3://[key:secret@]bucket[/prefix][?endpoint_url=...&region_name=...]``: any S3-compatible storage
    (extra ``s3``). Without key and secret, boto3's own configuration is used. ``addressing_style`` and
    ``signature_version`` are possible too.

    Raises ImproperlyConfigured without the URL in its text, which may contain a secret.
    """
    try:
        parts = urlsplit(url)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
        host, user, password = parts.hostname or "", parts.username, parts.password
    except ValueError:
        raise ImproperlyConfigured("FACEPRINT_STORAGE is not a valid URL.") from None
    path = unquote(parts.path)
    if parts.scheme == "file":
        if host or query or path.strip("/") == "":
            raise ImproperlyConfigured("FACEPRINT_STORAGE must look like file:///absolute/folder.")
        return {
            "BACKEND": "django.core.files.storage.FileSystemStorage",
            "OPTIONS": {
                "location": path,
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        }
    if parts.scheme != "s3" or not host:
        raise ImproperlyConfigured("FACEPRINT_STORAGE must begin with file:/// or s3://bucket.")
    options: dict[str, Any] = dict(query)
    if unknown := set(options) - S3_OPTIONS:
        raise ImproperlyConfigured(f"FACEPRINT_STORAGE has unknown options: {', '.join(sorted(unknown))}.")
    # urlsplit lowers the host; bucket names are lower case by rule, so nothing is lost.
    options["bucket_name"] = host
    if user or password:
        options["access_key"], options["secret_key"] = unquote(user or ""), unquote(password or "")
    if prefix := path.strip("/"):
        options["location"] = prefix
    return {
        "BACKEND": "storages.backends.s3.S3Storage",
        "OPTIONS": {"default_acl": "private", "file_overwrite": False, "querystring_auth": True} | options,
    }
