"""Keys from outside the settings: the environment, a KMS, a file, a vault.

A provider is a callable. It receives ``"ENCRYPTION_KEYS"`` or ``"INDEX_KEYS"`` and returns the keys, newest
first, each as 32 bytes or in urlsafe base64 as in the settings::

    FACEPRINT = {"ENCRYPTION_KEYS": "host.kms.faceprint_keys", "INDEX_KEYS": "host.kms.faceprint_keys"}

A process calls it when it first needs a key and again after :data:`REFRESH_SECONDS`, so that a new key is
used without a restart. If that later call fails, the process logs an error and goes on with the keys it has.
Exceptions of a provider may hold secrets: they are neither shown nor chained.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from .exceptions import FaceprintConfigurationError, replace_exceptions

logger = logging.getLogger(__name__)

Provider = Callable[[str], Sequence[str | bytes]]

#: A process calls a provider again after this time (seconds).
REFRESH_SECONDS = 300.0
#: It calls a provider that failed again after this time (seconds).
RETRY_SECONDS = 30.0


def environment(setting: str) -> list[str]:
    """The keys in the variable ``FACEPRINT_<setting>``, separated by commas, newest first."""
    return [key.strip() for key in os.environ.get(f"FACEPRINT_{setting}", "").split(",") if key.strip()]


class KeyCache:
    """The keys that providers returned, each until it is due for a refresh. Safe to share by threads.

    :param monotonic: seconds of a clock that never goes back.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        #: (setting, provider) → (time of the next call, keys)
        self._entries: dict[tuple[str, Provider], tuple[float, tuple[bytes, ...]]] = {}

    def keys_of(
        self, setting: str, provider: Provider, read: Callable[[Sequence[str | bytes]], tuple[bytes, ...]]
    ) -> tuple[bytes, ...]:
        """The keys that *provider* returns for *setting*, checked and decoded by *read*.

        Raises :class:`FaceprintConfigurationError` when the first call fails or returns no usable keys.
        """
        place = (setting, provider)
        entry = self._entries.get(place)
        if entry is not None and self._monotonic() < entry[0]:
            return entry[1]
        with self._lock:
            entry = self._entries.get(place)
            if entry is not None and self._monotonic() < entry[0]:
                return entry[1]
            try:
                keys, lasts = _fetch(setting, provider, read), REFRESH_SECONDS
            except FaceprintConfigurationError as error:
                if entry is None:
                    raise
                logger.error("faceprint: %s The keys that are already known stay in use.", error)
                keys, lasts = entry[1], RETRY_SECONDS
            self._entries[place] = (self._monotonic() + lasts, keys)
            return keys


def _fetch(
    setting: str, provider: Provider, read: Callable[[Sequence[str | bytes]], tuple[bytes, ...]]
) -> tuple[bytes, ...]:
    """One call of *provider*. Raises :class:`FaceprintConfigurationError`, without anything of its answer."""
    name = f'The key provider of FACEPRINT["{setting}"]'
    unusable = FaceprintConfigurationError(f"{name} returned no list of usable keys.")

    def replaced(error: Exception) -> FaceprintConfigurationError:
        if isinstance(error, FaceprintConfigurationError):
            return unusable
        return FaceprintConfigurationError(f"{name} failed ({type(error).__name__}).")

    # In one expression: no local variable, which an error report would show, holds the provider's answer.
    with replace_exceptions(Exception, by=replaced):
        keys = read(provider(setting))
    if not keys:
        raise unusable
    return keys
