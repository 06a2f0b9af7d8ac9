"""Keys from outside the settings: requested rarely, checked like others, and never shown."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from traceback import walk_tb
from typing import Any

import pytest
from django.core.checks import run_checks

from django_faceprint.conf import Conf, conf
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.key_providers import REFRESH_SECONDS, RETRY_SECONDS, KeyCache
from django_faceprint.privacy.keys import UnknownKey, encryption_ring, generate_key

ONE, TWO, THREE = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))
CANARY = "canary-of-a-vault"


class Vault:
    """A provider with an answer that the test sets. It records its calls."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls: list[str] = []

    def __call__(self, setting: str) -> Sequence[str | bytes]:
        self.calls.append(setting)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[no-any-return]


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Moves the time after which providers are called again."""
    clock = Clock()
    monkeypatch.setattr(conf, "key_cache", KeyCache(clock))
    return clock


@pytest.fixture
def vault(settings: Any, clock: Clock) -> Vault:
    """A vault that holds the encryption keys."""
    vault = Vault([ONE])
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": vault}
    return vault


def test_a_provider_is_called_once_and_again_when_its_answer_is_old(vault: Vault, clock: Clock) -> None:
    assert [conf.encryption_keys for _ in range(3)] == [(ONE,)] * 3
    assert vault.calls == ["ENCRYPTION_KEYS"]
    clock.now += REFRESH_SECONDS
    vault.answer = [TWO, ONE]
    assert conf.encryption_keys == (TWO, ONE)
    assert len(vault.calls) == 2


def test_what_was_sealed_before_a_key_was_added_stays_readable(vault: Vault, clock: Clock) -> None:
    sealed = encryption_ring().seal("field/x", b"synthetic", b"row")
    clock.now += REFRESH_SECONDS
    vault.answer = [TWO, ONE]
    assert encryption_ring().open("field/x", sealed, b"row") == b"synthetic"
    assert not encryption_ring().is_current(sealed)
    clock.now += REFRESH_SECONDS
    vault.answer = [TWO]
    with pytest.raises(UnknownKey):
        encryption_ring().open("field/x", sealed, b"row")


@pytest.mark.parametrize("key", [ONE, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="])
def test_keys_may_be_bytes_or_written_as_in_the_settings(vault: Vault, key: Any) -> None:
    vault.answer = (key,)
    assert conf.encryption_keys == (ONE,)


def test_a_dotted_path_names_a_provider(settings: Any, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "django_faceprint.key_providers.environment"
    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": path, "INDEX_KEYS": path}
    encryption, index = [generate_key(), generate_key()], generate_key()
    monkeypatch.setenv("FACEPRINT_ENCRYPTION_KEYS", f" {encryption[0]} ,{encryption[1]},")
    monkeypatch.setenv("FACEPRINT_INDEX_KEYS", index)
    assert len(conf.encryption_keys) == 2
    assert len(conf.index_keys) == 1
    assert len({*conf.encryption_keys, *conf.index_keys}) == 3


def test_the_known_keys_stay_in_use_when_a_provider_fails_later(
    vault: Vault, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    assert conf.encryption_keys == (ONE,)
    clock.now += REFRESH_SECONDS
    vault.answer = RuntimeError(CANARY)
    with caplog.at_level(logging.ERROR):
        assert conf.encryption_keys == (ONE,)
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text
    # It is called again after a while, not at every read until then.
    assert conf.encryption_keys == (ONE,)
    assert len(vault.calls) == 2
    clock.now += RETRY_SECONDS
    vault.answer = [THREE]
    assert conf.encryption_keys == (THREE,)


@pytest.mark.parametrize(
    "answer", [RuntimeError(CANARY), [], None, CANARY, [CANARY], [b"short"], [ONE, 5], {"key": ONE}]
)
def test_no_usable_keys_at_the_start_is_an_error_without_the_answer(vault: Vault, answer: Any) -> None:
    vault.answer = answer
    with pytest.raises(FaceprintConfigurationError, match="ENCRYPTION_KEYS") as caught:
        _ = conf.encryption_keys
    assert CANARY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    # Error reports show the variables of all frames. The first one is this test's.
    _, *frames = [frame for frame, _ in walk_tb(caught.value.__traceback__)]
    assert frames
    assert not [frame for frame in frames if CANARY in repr(frame.f_locals)]
    vault.answer = [TWO]
    assert conf.encryption_keys == (TWO,)


def test_system_checks_do_not_call_a_provider(vault: Vault) -> None:
    vault.answer = RuntimeError(CANARY)
    assert [message.id for message in run_checks(tags=["faceprint"])] == []
    assert vault.calls == []


@pytest.mark.parametrize("path", ["no.such.provider", "django_faceprint.conf.KEY_BYTES"])
def test_a_path_that_leads_nowhere_is_reported_at_start(settings: Any, path: str) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"INDEX_KEYS": path}
    assert [message.id for message in run_checks(tags=["faceprint"])] == ["faceprint.E006"]
    with pytest.raises(FaceprintConfigurationError, match="INDEX_KEYS"):
        _ = conf.index_keys


def test_one_provider_can_serve_both_settings(settings: Any) -> None:
    def both(setting: str) -> list[bytes]:
        return [ONE if setting == "ENCRYPTION_KEYS" else TWO]

    settings.FACEPRINT = settings.FACEPRINT | {"ENCRYPTION_KEYS": both, "INDEX_KEYS": both}
    own = Conf()
    assert (own.encryption_keys, own.index_keys) == ((ONE,), (TWO,))
