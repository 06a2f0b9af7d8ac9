"""The life of an access token."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from django_faceprint.client import AccessToken, CallRecord, FaceprintClient, MemoryTokenStore
from django_faceprint.exceptions import AuthenticationFailed, Rejected, Throttled, Unreachable

from .conftest import API_KEY, SECRET_KEY, VERIFY_TOKEN, Clock
from .server import Respond, RunningServer, Script, answer, failure, gateway, reset, success, token

DETAIL = "/result/detail"
OAUTH = "/oauth/2.0/token"


class SpyStore(MemoryTokenStore):
    """The memory store, with its keys in sight."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: set[str] = set()

    def put(self, key: str, token: AccessToken) -> None:
        self.keys.add(key)
        super().put(key, token)

    def only(self) -> AccessToken:
        (key,) = self.keys
        kept = self.get(key)
        assert kept is not None
        return kept


def used_tokens(server: Script) -> list[str]:
    return [request.query["access_token"] for request in server.asked(DETAIL)]


def test_token_is_fetched_once_and_kept(server: Script, client: FaceprintClient) -> None:
    server.always(DETAIL, success({}))

    client.result_detail(VERIFY_TOKEN)
    client.result_detail(VERIFY_TOKEN)

    (request,) = server.asked(OAUTH)
    assert request.method == "POST"
    assert request.query == {
        "grant_type": "client_credentials",
        "client_id": API_KEY,
        "client_secret": SECRET_KEY,
    }


def test_store_is_shared_and_its_key_reveals_nothing(
    server: Script, new_client: Callable[..., FaceprintClient], clock: Clock
) -> None:
    store = SpyStore()
    server.always(DETAIL, success({}))

    for _ in range(2):
        new_client(token_store=store).result_detail(VERIFY_TOKEN)

    assert len(server.asked(OAUTH)) == 1
    (key,) = store.keys
    assert len(key) == 64
    assert API_KEY not in key
    assert "24." not in repr(store.only())
    assert (store.only().expires_at - clock()).days == 30
    assert (store.only().expires_at - store.only().renew_at).days == 3


def test_applications_do_not_share_tokens(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    store = SpyStore()
    server.always(DETAIL, success({}))

    new_client(token_store=store).result_detail(VERIFY_TOKEN)
    new_client(token_store=store, api_key="another").result_detail(VERIFY_TOKEN)

    assert len(store.keys) == 2


@pytest.mark.parametrize(
    ("days", "fetched"), [(26.9, 1), (27.1, 2), (31, 2)], ids=["fresh", "renewal due", "expired"]
)
def test_token_is_renewed_well_before_its_end(
    server: Script, client: FaceprintClient, clock: Clock, days: float, fetched: int
) -> None:
    server.always(DETAIL, success({}))
    client.result_detail(VERIFY_TOKEN)
    clock.advance(days=days)
    server.then(OAUTH, token("24.second"))

    client.result_detail(VERIFY_TOKEN)

    assert len(server.asked(OAUTH)) == fetched


def test_short_lived_token_is_not_renewed_at_once(
    server: Script, client: FaceprintClient, clock: Clock
) -> None:
    server.always(DETAIL, success({}))
    server.always(OAUTH, token(expires_in="100"))
    client.result_detail(VERIFY_TOKEN)
    clock.advance(seconds=89)
    client.result_detail(VERIFY_TOKEN)
    assert len(server.asked(OAUTH)) == 1
    clock.advance(seconds=2)
    client.result_detail(VERIFY_TOKEN)
    assert len(server.asked(OAUTH)) == 2


@pytest.mark.parametrize("problem", [reset, Respond(b"", 503), answer({"error": "invalid_client"}, 401)])
def test_old_token_serves_on_when_renewal_fails(
    server: Script, client: FaceprintClient, clock: Clock, problem: Any
) -> None:
    server.always(DETAIL, success({}))
    client.result_detail(VERIFY_TOKEN)
    server.always(OAUTH, problem)
    clock.advance(days=28)

    for _ in range(3):
        assert client.result_detail(VERIFY_TOKEN).ok
    assert len(server.asked(OAUTH)) == 2, "a failed renewal is not repeated with every call"

    clock.advance(minutes=3)
    server.always(OAUTH, token("24.second"))
    client.result_detail(VERIFY_TOKEN)
    assert used_tokens(server)[-1] == "24.second"


def test_expired_token_is_never_used(server: Script, client: FaceprintClient, clock: Clock) -> None:
    server.always(DETAIL, success({}))
    client.result_detail(VERIFY_TOKEN)
    server.always(OAUTH, reset)
    clock.advance(days=30)

    with pytest.raises(Unreachable):
        client.result_detail(VERIFY_TOKEN)

    assert len(used_tokens(server)) == 1


@pytest.mark.parametrize("code", [100, 110, 111, "110"])
@pytest.mark.parametrize("envelope", [gateway, failure])
def test_refused_token_is_replaced_once(
    server: Script, client: FaceprintClient, code: Any, envelope: Callable[..., Respond]
) -> None:
    server.then(OAUTH, token("24.first"), token("24.second"))
    server.then(DETAIL, envelope(code), success({}))

    assert client.result_detail(VERIFY_TOKEN).ok
    assert used_tokens(server) == ["24.first", "24.second"]


def test_second_refusal_is_final(server: Script, client: FaceprintClient, records: list[CallRecord]) -> None:
    server.always(DETAIL, gateway(110, "Access token invalid or no longer valid"))

    with pytest.raises(AuthenticationFailed) as caught:
        client.result_detail(VERIFY_TOKEN)

    assert len(server.asked(DETAIL)) == 2
    assert len(server.asked(OAUTH)) == 2
    assert caught.value.error is not None
    assert caught.value.error.code == "110"
    assert [record.outcome for record in records] == ["ok", "reauthenticate"] * 2


def test_token_replaced_by_another_worker_is_taken_not_fetched(
    server: Script, new_client: Callable[..., FaceprintClient]
) -> None:
    store = SpyStore()
    client = new_client(token_store=store)
    other = new_client(token_store=store)
    server.then(OAUTH, token("24.first"), token("24.second"))

    def replaced_meanwhile(handler: Any) -> None:
        other.check_credentials()
        gateway(110)(handler)

    server.then(DETAIL, replaced_meanwhile, success({}))

    assert client.result_detail(VERIFY_TOKEN).ok
    assert used_tokens(server) == ["24.first", "24.second"]
    assert len(server.asked(OAUTH)) == 2


def test_threads_fetch_one_token(server: Script, client: FaceprintClient) -> None:
    server.always(DETAIL, success({}))
    together = threading.Barrier(8)

    def call(_: int) -> bool:
        together.wait(5)
        return client.result_detail(VERIFY_TOKEN).ok

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(8)))

    assert len(server.asked(OAUTH)) == 1


def test_threads_refused_together_fetch_one_more(server: Script, client: FaceprintClient) -> None:
    client.check_credentials()
    server.then(OAUTH, token("24.second"))
    together = threading.Barrier(4)

    def first_refused(handler: Any) -> None:
        fresh = "24.second" in handler.path
        if not fresh:
            together.wait(5)
        (success({}) if fresh else gateway(111))(handler)

    server.always(DETAIL, first_refused)
    with ThreadPoolExecutor(4) as pool:
        assert all(answer.ok for answer in pool.map(client.result_detail, [VERIFY_TOKEN] * 4))

    assert len(server.asked(OAUTH)) == 2


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ("unknown client id", "API key is wrong"),
        ("Client authentication failed", "Secret Key is wrong"),
        ("something new", "API key or the Secret Key"),
    ],
)
def test_a_wrong_api_key_and_a_wrong_secret_key_differ(
    server: Script, client: FaceprintClient, description: str, words: str
) -> None:
    server.always(OAUTH, answer({"error_description": description, "error": "invalid_client"}, 401))

    with pytest.raises(AuthenticationFailed, match=words) as caught:
        client.check_credentials()

    assert caught.value.error is not None
    assert (caught.value.error.code, caught.value.error.http_status) == ("invalid_client", 401)
    with pytest.raises(AuthenticationFailed):
        client.result_detail(VERIFY_TOKEN)


@pytest.mark.parametrize(
    ("step", "exception"),
    [
        (answer({"error": "invalid_request"}, 401), AuthenticationFailed),
        (answer({"error": "something_new"}, 401), Rejected),
        (gateway(18), Throttled),
        (Respond(b"<html>", 401), Unreachable),
        (answer({"expires_in": 2592000}), Rejected),
        (answer({"access_token": "", "expires_in": 1, "session_secret": "s"}), Rejected),
        (answer({"access_token": "two words"}), Rejected),
        (answer({"access_token": 42}), Rejected),
    ],
)
def test_other_answers_of_the_token_interface(
    server: Script, client: FaceprintClient, step: Respond, exception: type[Exception]
) -> None:
    server.always(OAUTH, step)

    with pytest.raises(exception):
        client.check_credentials()


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (2592000, 2592000),
        ("2592000", 2592000),
        (10**30, 2592000),
        (86400.5, 86400.5),
        (None, 86400),
        (0, 86400),
        (-5, 86400),
        (True, 86400),
        ("soon", 86400),
        ([], 86400),
    ],
)
def test_lifetime_is_read_with_care(
    server: Script,
    new_client: Callable[..., FaceprintClient],
    clock: Clock,
    expires_in: Any,
    seconds: float,
) -> None:
    store = SpyStore()
    server.always(OAUTH, token(expires_in=expires_in))

    new_client(token_store=store).check_credentials()

    assert (store.only().expires_at - clock()).total_seconds() == seconds


def test_discard_spares_a_newer_token(clock: Clock) -> None:
    store = MemoryTokenStore()
    old = AccessToken("old", clock(), clock())
    new = AccessToken("new", clock(), clock())
    store.put("key", new)

    store.discard("key", old)

    assert store.get("key") == new
    store.discard("key", new)
    assert store.get("key") is None


def test_token_of_one_host_is_not_sent_to_another(
    server: Script, new_client: Callable[..., FaceprintClient]
) -> None:
    store = SpyStore()
    new_client(token_store=store).check_credentials()
    with RunningServer() as other:
        other.always(OAUTH, token("24.other"))
        new_client(token_store=store, api_url=other.url).check_credentials()

    assert len(store.keys) == 2
