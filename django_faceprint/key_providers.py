"""Where keys come from when they do not stand in the settings: the environment, a KMS, a file, a vault.

A provider is a callable that is given ``"ENCRYPTION_KEYS"`` or ``"INDEX_KEYS"`` and returns the keys,
newest first, each as 32 bytes or as the settings would have it (urlsafe base64)::

    FACEPRINT = {"ENCRYPTION_KEYS": "host.kms.faceprint_keys", "INDEX_KEYS": "host.kms.faceprint_keys"}

It is asked when a process first needs a key and again after :data:`KEPT_SECONDS`, so that a key that was
added is used without a restart. A provider that fails then costs nothing: the keys that are known stay in
use, and the log says so. What a provider raises is never shown or chained, as it may hold a secret.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from .exceptions import FaceprintConfigurationError

logger = logging.getLogger(__name__)

Provider = Callable[[str], Sequence[str | bytes]]

#: How long a process uses keys before it asks for them again (seconds).
KEPT_SECONDS = 300.0
#: How soon a provider that failed is asked again (seconds).
RETRY_SECONDS = 30.0


def environment(setting: str) -> list[str]:
    """The keys of the variable ``FACEPRINT_<setting>``, separated by commas, newest first."""
    return [key.strip() for key in os.environ.get(f"FACEPRINT_{setting}", "").split(",") if key.strip()]


class KeptKeys:
    """What providers gave, for as long as it may be used. Safe to share by threads."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._kept: dict[tuple[str, Provider], tuple[float, tuple[bytes, ...]]] = {}

    def keys_of(
        self, setting: str, provider: Provider, read: Callable[[Sequence[str | bytes]], tuple[bytes, ...]]
    ) -> tuple[bytes, ...]:
        """The keys that *provider* gives for *setting*, checked by *read*.

        Raises :class:`FaceprintConfigurationError` when it fails, or gives none that can be used, and
        nothing is known from before.
        """
        place = (setting, provider)
        kept = self._kept.get(place)
        if kept is not None and self._monotonic() < kept[0]:
            return kept[1]
        with self._lock:
            kept = self._kept.get(place)
            if kept is not None and self._monotonic() < kept[0]:
                return kept[1]
            keys, problem = _ask(setting, provider, read)
            lasts = KEPT_SECONDS
            if problem:
                if kept is None:
                    raise FaceprintConfigurationError(problem)
                logger.error("faceprint: %s The keys that were known before stay in use.", problem)
                keys, lasts = kept[1], RETRY_SECONDS
            self._kept[place] = (self._monotonic() + lasts, keys)
            return keys


def _ask(
    setting: str, provider: Provider, read: Callable[[Sequence[str | bytes]], tuple[bytes, ...]]
) -> tuple[tuple[bytes, ...], str]:
    """The keys, or why there are none: in words without anything that the provider said."""
    try:
        given = provider(setting)
    except Exception as error:  # noqa: BLE001  (providers raise what they like; its type is all we show)
        return (), f'The key provider of FACEPRINT["{setting}"] failed ({type(error).__name__}).'
    try:
        keys = read(given)
    except FaceprintConfigurationError:
        keys = ()
    if not keys:
        return (), f'The key provider of FACEPRINT["{setting}"] gave no list of usable keys.'
    return keys, ""
