"""Typed access to ``settings.FACEPRINT``.

The only module that reads Django's settings. Each access reads the setting again, so ``override_settings``
works, and checks its value. A wrong type or an unknown key raises
:class:`~django_faceprint.exceptions.FaceprintConfigurationError`, which names the key and never its value.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from .exceptions import FaceprintConfigurationError, replace_exceptions
from .key_providers import KeyCache, Provider

BAIDU_API_URL = "https://aip.baidubce.com"
BAIDU_H5_URL = "https://brain.baidu.com/face/print/"
BAIDU_MEDIA_HOSTS = ("brain.baidu.com", "*.bcebos.com")

KEYS = frozenset(
    {
        "APPLICATIONS",
        "API_URL",
        "H5_URL",
        "PUBLIC_URL",
        "MEDIA_HOSTS",
        "ENCRYPTION_KEYS",
        "INDEX_KEYS",
        "QPS",
        "CONCURRENCY",
        "REQUIRE_CONSENT",
        "REVEAL_REASONS",
        "RETENTION",
        "LOG_RETENTION",
        "RETENTION_BASIS",
        "RETURN_URL_HOSTS",
        "LATEST_GRACE",
        "CLOCK",
        "PROXIES",
    }
)
APPLICATION_KEYS = frozenset({"API_KEY", "SECRET_KEY", "ACCOUNT"})
KEY_BYTES = 32
REVEAL_REASONS = ("complaint", "review", "audit", "legal", "other")
_REASON_CODE = re.compile(r"[a-z0-9_]{1,30}")
_DOTTED_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", re.ASCII)
#: The keys of ``RETENTION`` beside "default": the kinds of archived files.
RETENTION_KINDS = frozenset(
    {
        *("face", "attempt_face", "id_front", "id_back", "match_image"),
        *("process_video", "video", "frame"),
    }
)
MAX_RETENTION = timedelta(days=36_500)


@dataclass(frozen=True)
class Application:
    """Credentials of one Baidu application. A verify_token only works with the application that issued it."""

    api_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    account: str = "default"


@dataclass(frozen=True)
class Retention:
    """How long evidence is kept after the verdict; None: without end.

    ``default`` applies to identity, answers and every kind of file that ``kinds`` does not name. Zero in
    ``kinds``: files of this kind are not kept at all.
    """

    default: timedelta | None
    kinds: Mapping[str, timedelta | None]


class Conf:
    """The settings of django-faceprint. See ``docs/settings.md`` for meaning, type and default of each."""

    def __init__(self) -> None:
        #: The keys that key providers returned.
        self.key_cache = KeyCache()

    @property
    def applications(self) -> Mapping[str, Application]:
        """Alias → credentials. Applications with the same ``ACCOUNT`` share the QPS of that Baidu account."""
        raw = self._get("APPLICATIONS", {})
        if not isinstance(raw, Mapping):
            raise _wrong("APPLICATIONS", "a dict of alias → {API_KEY, SECRET_KEY, ACCOUNT}")
        if not all(isinstance(alias, str) and 1 <= len(alias) <= 50 for alias in raw):
            raise _wrong("APPLICATIONS", "keyed by aliases of 1–50 characters")
        return {alias: _application(f"APPLICATIONS[{alias!r}]", values) for alias, values in raw.items()}

    @property
    def api_url(self) -> str:
        """Base URL of Baidu's server API, without a slash at the end."""
        return self._url("API_URL", BAIDU_API_URL).rstrip("/")

    @property
    def h5_url(self) -> str:
        """URL of Baidu's page, to which the person is redirected."""
        return self._url("H5_URL", BAIDU_H5_URL)

    @property
    def public_url(self) -> str:
        """URL at which browsers reach this site, without a slash at the end; "" when not set."""
        if not self._get("PUBLIC_URL", ""):
            return ""
        return self._url("PUBLIC_URL", "").rstrip("/")

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """Hosts (``host[:port]``, ``*.`` allowed) from which pictures and videos may be downloaded."""
        return self._strings("MEDIA_HOSTS", BAIDU_MEDIA_HOSTS)

    @property
    def encryption_keys(self) -> tuple[bytes, ...]:
        """Keys that encrypt fields and wrap file keys, newest first, 32 bytes each.

        May call a provider (:mod:`django_faceprint.key_providers`), which may use the network.
        """
        return self._keys("ENCRYPTION_KEYS")

    @property
    def index_keys(self) -> tuple[bytes, ...]:
        """Keys of the blind indexes, newest first, 32 bytes each; never the encryption keys."""
        return self._keys("INDEX_KEYS")

    @property
    def qps(self) -> float:
        """Requests per second of one Baidu account to one interface; 0: no limit (API reference 4.5)."""
        value = self._get("QPS", 10)
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1000:
            raise _wrong("QPS", "a number from 0 (no limit) to 1000, or None")
        return float(value)

    @property
    def concurrency(self) -> int:
        """How many sessions one worker process visits at once: a visit waits for the network, not the CPU."""
        value = self._get("CONCURRENCY", 8)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
            raise _wrong("CONCURRENCY", "a whole number from 1 to 64")
        return value

    @property
    def require_consent(self) -> bool:
        """Whether a session may only start with evidence of consent."""
        value = self._get("REQUIRE_CONSENT", False)
        if not isinstance(value, bool):
            raise _wrong("REQUIRE_CONSENT", "True or False")
        return value

    @property
    def reveal_reasons(self) -> Mapping[str, str]:
        """Code → name of the reasons for revealing an identity, in the order in which they are listed.

        The access log keeps the code: 1–30 lower case letters, digits and underscores. ``other`` requires
        an explanation. The name "" stands for the name that comes with the package.
        """
        value = self._get("REVEAL_REASONS", REVEAL_REASONS)
        if isinstance(value, list | tuple):
            value = dict.fromkeys(value, "")
        if not isinstance(value, Mapping) or not value:
            raise _wrong("REVEAL_REASONS", "a list of codes, or a dict of code → name")
        for code, name in value.items():
            if not isinstance(code, str) or not _REASON_CODE.fullmatch(code):
                raise _wrong("REVEAL_REASONS", "keyed by codes of lower case letters, digits and underscores")
            if not isinstance(name, str | Promise):
                raise _wrong("REVEAL_REASONS", "a list of codes, or a dict of code → name")
        return dict(value)

    @property
    def retention(self) -> Retention:
        """How long evidence is kept after the verdict, unless the plan says otherwise."""
        value = self._get("RETENTION", timedelta(days=180))
        expected = "a timedelta of at least one day, None, or a dict of these"
        if not isinstance(value, Mapping):
            return Retention(_retention(value, expected), {})
        if unknown := set(value) - RETENTION_KINDS - {"default"}:
            raise FaceprintConfigurationError(f'FACEPRINT["RETENTION"] has unknown keys: {_names(unknown)}.')
        default = _retention(value.get("default", timedelta(days=180)), expected)
        kinds = {
            kind: timedelta(0) if _is_zero(days) else _retention(days, f"{expected}; 0 switches a kind off")
            for kind, days in value.items()
            if kind != "default"
        }
        if default is not None and any(span is not None and span > default for span in kinds.values()):
            raise _wrong("RETENTION", 'a dict in which no kind is kept longer than "default"')
        return Retention(default, kinds)

    @property
    def retention_basis(self) -> str:
        """The legal basis for keeping evidence without end, as text; "" when there is none."""
        value = self._get("RETENTION_BASIS", "")
        if not isinstance(value, str):
            raise _wrong("RETENTION_BASIS", "a text")
        return value.strip()

    @property
    def log_retention(self) -> timedelta:
        """How long the access log and the records of consents and erasures are kept."""
        value = self._get("LOG_RETENTION", timedelta(days=1_095))
        if not isinstance(value, timedelta) or not timedelta(days=1) <= value <= MAX_RETENTION:
            raise _wrong("LOG_RETENTION", "a timedelta of at least one day")
        return value

    @property
    def return_url_hosts(self) -> tuple[str, ...]:
        """Hosts (``host[:port]``) to which a session's ``return_url`` may lead."""
        return self._strings("RETURN_URL_HOSTS", ())

    @property
    def latest_grace(self) -> timedelta:
        """How long after the latest possible expiry we keep asking Baidu before evidence counts as lost."""
        value = self._get("LATEST_GRACE", timedelta(hours=1))
        if not isinstance(value, timedelta) or not timedelta(0) <= value <= timedelta(days=7):
            raise _wrong("LATEST_GRACE", "a timedelta between 0 and 7 days")
        return value

    @property
    def clock_path(self) -> str:
        """Dotted path of the clock."""
        value = self._get("CLOCK", "django_faceprint.clock.system_clock")
        if not isinstance(value, str):
            raise _wrong("CLOCK", "a dotted path")
        return value

    @property
    def clock(self) -> Callable[[], datetime]:
        """The callable that returns the current time; see :mod:`django_faceprint.clock`."""
        return _imported("CLOCK", self.clock_path, "the dotted path of a callable that can be imported")

    @property
    def proxies(self) -> Mapping[str, str]:
        """Scheme → proxy URL for all traffic to Baidu. Environment variables are ignored."""
        value = self._get("PROXIES", {})
        if not isinstance(value, Mapping) or not all(
            key in ("http", "https") and isinstance(url, str) for key, url in value.items()
        ):
            raise _wrong("PROXIES", 'a dict of "http"/"https" → URL')
        return dict(value)

    @property
    def environment(self) -> Literal["live", "sandbox"]:
        """``live`` against Baidu's own API host, ``sandbox`` against any other."""
        host = urlsplit(self.api_url).hostname or ""
        return "live" if host == "baidubce.com" or host.endswith(".baidubce.com") else "sandbox"

    @property
    def debug(self) -> bool:
        """Django's ``DEBUG``. Only while it is on are a sandbox and a movable clock allowed."""
        return bool(settings.DEBUG)

    @property
    def language(self) -> str:
        """Django's ``LANGUAGE_CODE``: the language of mails."""
        return str(settings.LANGUAGE_CODE)

    def unknown_keys(self) -> list[str]:
        """Unknown keys of ``settings.FACEPRINT``, most often misspelt ones."""
        return sorted(str(key) for key in set(self._all()) - KEYS)

    def _all(self) -> Mapping[str, Any]:
        raw = getattr(settings, "FACEPRINT", None)
        if raw is None:
            raise FaceprintConfigurationError("settings.FACEPRINT is missing.")
        if not isinstance(raw, Mapping):
            raise FaceprintConfigurationError("settings.FACEPRINT must be a dict.")
        return raw

    def _get(self, key: str, default: Any) -> Any:
        raw = self._all()
        if not raw.keys() <= KEYS:
            unknown = set(raw) - KEYS
            raise FaceprintConfigurationError(f"settings.FACEPRINT has unknown keys: {_names(unknown)}.")
        return raw.get(key, default)

    def _url(self, key: str, default: str) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            raise _wrong(key, "a URL")
        try:
            parts = urlsplit(value)
            usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.username is None
            usable = usable and (parts.port is None or parts.port > 0)
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise _wrong(key, "an http(s) URL without user name, query or fragment")
        return value

    def _strings(self, key: str, default: tuple[str, ...]) -> tuple[str, ...]:
        value = self._get(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) and item for item in value):
            raise _wrong(key, "a list of non-empty strings")
        return tuple(value)

    def _keys(self, key: str) -> tuple[bytes, ...]:
        provider = self.key_provider(key)
        if provider is None:
            return _decoded_keys(key, self._strings(key, ()))
        return self.key_cache.keys_of(key, provider, lambda given: _read_keys(key, given))

    def key_provider(self, key: str) -> Provider | None:
        """The provider that ``ENCRYPTION_KEYS`` or ``INDEX_KEYS`` names; None when it lists the keys itself.

        The provider is not called. Raises :class:`FaceprintConfigurationError` when it cannot be imported.
        """
        value = self._get(key, ())
        if isinstance(value, str) and _DOTTED_PATH.fullmatch(value):
            expected = "a list of keys, or the dotted path of a callable that can be imported"
            return _imported(key, value, expected)
        return value if callable(value) else None


def _application(name: str, values: Any) -> Application:
    if not isinstance(values, Mapping):
        raise _wrong(name, "a dict")
    if unknown := set(values) - APPLICATION_KEYS:
        raise FaceprintConfigurationError(f'FACEPRINT["{name}"] has unknown keys: {_names(unknown)}.')
    for key in APPLICATION_KEYS & set(values):
        if not isinstance(values[key], str):
            raise _wrong(f"{name}.{key}", "a string")
    if not values.get("API_KEY") or not values.get("SECRET_KEY"):
        raise FaceprintConfigurationError(f"FACEPRINT {name} needs API_KEY and SECRET_KEY.")
    return Application(values["API_KEY"], values["SECRET_KEY"], values.get("ACCOUNT") or "default")


def _imported(key: str, path: str, expected: str) -> Callable[..., Any]:
    """The callable at a dotted path; raises that the setting *key* must be *expected*."""
    with replace_exceptions(ImportError, by=lambda error: _wrong(key, expected)):
        value = import_string(path)
    if not callable(value):
        raise _wrong(key, expected)
    return value  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _decoded_keys(name: str, texts: tuple[str, ...]) -> tuple[bytes, ...]:
    # Cached: sealing or opening a value reads the keys each time.
    return _read_keys(name, texts)


def _read_keys(name: str, given: Sequence[str | bytes]) -> tuple[bytes, ...]:
    if not isinstance(given, list | tuple):
        raise _wrong(name, "a list of keys")
    keys = []
    for key in given:
        raw = key if isinstance(key, bytes) else b""
        if isinstance(key, str):
            with suppress(ValueError):
                raw = base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)
        if len(raw) != KEY_BYTES:
            raise _wrong(name, f"a list of urlsafe-base64 keys of {KEY_BYTES} random bytes each")
        keys.append(raw)
    return tuple(keys)


def _wrong(key: str, expected: str) -> FaceprintConfigurationError:
    return FaceprintConfigurationError(f'FACEPRINT["{key}"] must be {expected}.')


def _retention(value: Any, expected: str) -> timedelta | None:
    if value is None:
        return None
    if not isinstance(value, timedelta) or not timedelta(days=1) <= value <= MAX_RETENTION:
        raise _wrong("RETENTION", expected)
    return value


def _is_zero(value: Any) -> bool:
    return value == timedelta(0) or (value == 0 and not isinstance(value, bool | timedelta))


def _names(keys: set[Any]) -> str:
    return ", ".join(sorted(str(key) for key in keys))


conf = Conf()
