"""Typed access to ``settings.FACEPRINT``.

The only module that reads Django's settings. Every property is read anew on each access, so
``override_settings`` works, and every value is checked when it is read: a wrong type or an unknown
key raises :class:`~django_faceprint.exceptions.FaceprintConfigurationError` with the key's name and
never its value.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import urlsplit

from django.conf import settings
from django.utils.functional import Promise
from django.utils.module_loading import import_string

from .exceptions import FaceprintConfigurationError
from .key_providers import KeptKeys, Provider

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
#: What ``RETENTION`` may name beside "default": the kinds of archived files.
RETENTION_KINDS = frozenset(
    {
        *("face", "attempt_face", "id_front", "id_back", "match_image"),
        *("process_video", "video", "frame"),
    }
)
MAX_RETENTION = timedelta(days=36_500)


@dataclass(frozen=True)
class Application:
    """Credentials of one Baidu application. A verify_token only works with the application that made it."""

    api_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    account: str = "default"


@dataclass(frozen=True)
class Retention:
    """How long things are kept after the verdict; None: without end.

    ``default`` holds for identity, answers and every kind of file that ``kinds`` does not name. Zero in
    ``kinds``: files of this kind are not kept at all.
    """

    default: timedelta | None
    kinds: Mapping[str, timedelta | None]


class Conf:
    """The settings of django-faceprint. See ``docs/settings.md`` for meaning, type and default of each."""

    def __init__(self) -> None:
        self._kept_keys = KeptKeys()

    @property
    def applications(self) -> Mapping[str, Application]:
        """Alias → credentials. ``ACCOUNT`` names the Baidu account, whose QPS its applications share."""
        raw = self._get("APPLICATIONS", {})
        if not isinstance(raw, Mapping):
            raise _wrong("APPLICATIONS", "a dict of alias → {API_KEY, SECRET_KEY, ACCOUNT}")
        applications = {}
        for alias, values in raw.items():
            name = f"APPLICATIONS[{alias!r}]"
            if not isinstance(alias, str) or not 1 <= len(alias) <= 50:
                raise _wrong("APPLICATIONS", "keyed by aliases of 1–50 characters")
            if not isinstance(values, Mapping):
                raise _wrong(name, "a dict")
            if unknown := set(values) - APPLICATION_KEYS:
                raise FaceprintConfigurationError(f'FACEPRINT["{name}"] has unknown keys: {_names(unknown)}.')
            for key in APPLICATION_KEYS & set(values):
                if not isinstance(values[key], str):
                    raise _wrong(f"{name}.{key}", "a string")
            if not values.get("API_KEY") or not values.get("SECRET_KEY"):
                raise FaceprintConfigurationError(f"FACEPRINT {name} needs API_KEY and SECRET_KEY.")
            applications[alias] = Application(
                api_key=values["API_KEY"],
                secret_key=values["SECRET_KEY"],
                account=values.get("ACCOUNT") or "default",
            )
        return applications

    @property
    def api_url(self) -> str:
        """Base of the server API, without a slash at the end."""
        return self._url("API_URL", BAIDU_API_URL).rstrip("/")

    @property
    def h5_url(self) -> str:
        """The page that a person is sent to."""
        return self._url("H5_URL", BAIDU_H5_URL)

    @property
    def public_url(self) -> str:
        """Where browsers reach this site, without a slash at the end; "" when not set."""
        if not self._get("PUBLIC_URL", ""):
            return ""
        return self._url("PUBLIC_URL", "").rstrip("/")

    @property
    def media_hosts(self) -> tuple[str, ...]:
        """Hosts (``host[:port]``, ``*.`` allowed) from which pictures and videos may be fetched."""
        return self._strings("MEDIA_HOSTS", BAIDU_MEDIA_HOSTS)

    @property
    def encryption_keys(self) -> tuple[bytes, ...]:
        """Keys that encrypt fields and wrap file keys, newest first, 32 bytes each.

        A provider (:mod:`django_faceprint.key_providers`) may be asked for them, over the network too.
        """
        return self._keys("ENCRYPTION_KEYS")

    @property
    def index_keys(self) -> tuple[bytes, ...]:
        """Keys of the blind indexes, newest first, 32 bytes each; never the encryption keys."""
        return self._keys("INDEX_KEYS")

    @property
    def qps(self) -> float:
        """Queries per second that one Baidu account may send to one interface (API reference 4.5)."""
        value = self._get("QPS", 10)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 10_000:
            raise _wrong("QPS", "a number above 0 and at most 10000")
        return float(value)

    @property
    def concurrency(self) -> int:
        """How many sessions one worker process looks at at once: each waits for the network, not the CPU."""
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
        """Code → name, in the order of the list from which one must be chosen to see an identity.

        A code of one to 30 lower case letters, digits and underscores is what the access log keeps.
        ``other`` demands words. A name of "" stands for the one that comes with the package.
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
        expected = "a timedelta of at least one day, None, or a dict of such"
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
            raise _wrong("RETENTION", 'without a kind that is kept longer than "default"')
        return Retention(default, kinds)

    @property
    def retention_basis(self) -> str:
        """The legal basis of keeping evidence without end, in words; "" when there is none."""
        value = self._get("RETENTION_BASIS", "")
        if not isinstance(value, str):
            raise _wrong("RETENTION_BASIS", "a text")
        return value.strip()

    @property
    def log_retention(self) -> timedelta:
        """How long the access log and records of consents and erasures are kept, apart from evidence."""
        value = self._get("LOG_RETENTION", timedelta(days=1_095))
        if not isinstance(value, timedelta) or not timedelta(days=1) <= value <= timedelta(days=36_500):
            raise _wrong("LOG_RETENTION", "a timedelta of at least one day")
        return value

    @property
    def return_url_hosts(self) -> tuple[str, ...]:
        """Hosts (``host[:port]``) that a session's ``return_url`` may point at."""
        return self._strings("RETURN_URL_HOSTS", ())

    @property
    def latest_grace(self) -> timedelta:
        """How long past the latest possible expiry we keep asking before evidence counts as lost."""
        value = self._get("LATEST_GRACE", timedelta(hours=1))
        if not isinstance(value, timedelta) or not timedelta(0) <= value <= timedelta(days=7):
            raise _wrong("LATEST_GRACE", "a timedelta between 0 and 7 days")
        return value

    @property
    def clock_path(self) -> str:
        """Dotted path of the clock; the system's clock by default."""
        value = self._get("CLOCK", "django_faceprint.clock.system_clock")
        if not isinstance(value, str):
            raise _wrong("CLOCK", "a dotted path")
        return value

    @property
    def clock(self) -> Callable[[], datetime]:
        """The function that tells the time; see :mod:`django_faceprint.clock`."""
        try:
            clock = import_string(self.clock_path)
        except ImportError:
            raise _wrong("CLOCK", "the dotted path of a callable that can be imported") from None
        if not callable(clock):
            raise _wrong("CLOCK", "the dotted path of a callable")
        return clock  # type: ignore[no-any-return]

    @property
    def proxies(self) -> Mapping[str, str]:
        """Scheme → proxy URL for all upstream traffic. Environment variables are not consulted."""
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
        """Django's ``DEBUG``: on, a sandbox and a movable clock are allowed."""
        return bool(settings.DEBUG)

    @property
    def language(self) -> str:
        """Django's ``LANGUAGE_CODE``: the language of mails, which are written to nobody in particular."""
        return str(settings.LANGUAGE_CODE)

    def unknown_keys(self) -> list[str]:
        """Keys of ``settings.FACEPRINT`` that mean nothing, most often misspelt ones."""
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
        return self._kept_keys.keys_of(key, provider, lambda given: _read_keys(key, given))

    def key_provider(self, key: str) -> Provider | None:
        """The callable that ``ENCRYPTION_KEYS`` or ``INDEX_KEYS`` names; None when the keys stand there.

        It is not called. Raises when a dotted path leads nowhere.
        """
        value = self._get(key, ())
        if isinstance(value, str) and _DOTTED_PATH.fullmatch(value):
            try:
                value = import_string(value)
            except ImportError:
                value = None
            if not callable(value):
                raise _wrong(key, "a list of keys, or the dotted path of a callable that can be imported")
        return value if callable(value) else None


@lru_cache(maxsize=8)
def _decoded_keys(name: str, texts: tuple[str, ...]) -> tuple[bytes, ...]:
    # Remembered: every value that is sealed asks for them.
    return _read_keys(name, texts)


def _read_keys(name: str, given: Sequence[str | bytes]) -> tuple[bytes, ...]:
    if not isinstance(given, list | tuple):
        raise _wrong(name, "a list of keys")
    keys = []
    for key in given:
        raw = key if isinstance(key, bytes) else b""
        if isinstance(key, str):
            try:
                raw = base64.b64decode(key.encode("ascii"), altchars=b"-_", validate=True)
            except (ValueError, binascii.Error, UnicodeEncodeError):
                raw = b""
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
