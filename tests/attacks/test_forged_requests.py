"""What a browser or a caller can send by itself or be made to send: others' ids, hosts, links, bodies."""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.test import Client
from django.urls import reverse
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from django_faceprint.models import AccessLog, AlertRule, VerificationSession
from django_faceprint.verification import return_token
from tests import factories
from tests.scenario import Scenario
from tests.test_permission_matrix import ADMIN_LINES, API_LINES, address_of

from .conftest import SECRETS, text_of

API = "/api/faceprint/"
NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
def stranger(db: None) -> APIClient:
    """A caller of the API who started nothing."""
    user = get_user_model().objects.create_user("stranger", "", "secret")
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
    return client


# --- ids ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["", "result/", "stat/", "media/", "identity/", "match-image/", "refresh/"])
@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_another_callers_session_is_told_from_none_by_nothing(
    stranger: APIClient, victim: VerificationSession, part: str, method: str
) -> None:
    body = None if method == "get" else {"name": factories.NAME, "number": factories.NUMBER, "image": "AAAA"}
    answers = [
        getattr(stranger, method)(f"{API}sessions/{id}/{part}", body)
        for id in (victim.public_id, NOBODY)  # noqa: A001
    ]
    foreign, missing = answers
    assert foreign.status_code == missing.status_code
    assert foreign.status_code in (404, 405)
    assert foreign.content == missing.content
    assert dict(foreign.headers) == dict(missing.headers)
    assert not AccessLog.objects.exists()


def test_numbers_of_rows_and_ids_near_a_known_one_find_nothing(
    stranger: APIClient, victim: VerificationSession
) -> None:
    asset = victim.assets.first()
    assert asset is not None
    guesses = [str(victim.pk), str(asset.pk), "1", "0", "-1", "1e1", "%00", "..", "*", "null"]
    guesses += [str(UUID(int=victim.public_id.int + step)) for step in (-2, -1, 1, 2)]
    for guess in guesses:
        for address in (f"{API}sessions/{guess}/", f"{API}media/{guess}/content/"):
            assert stranger.get(address).status_code == 404, address
    assert stranger.get(f"{API}media/{asset.public_id}/content/").status_code == 404


def test_an_id_of_one_kind_is_none_of_another(superuser: Client, victim: VerificationSession) -> None:
    asset = victim.assets.first()
    assert asset is not None
    assert superuser.get(f"{API}sessions/{asset.public_id}/").status_code == 404
    assert superuser.get(f"{API}media/{victim.public_id}/content/").status_code == 404


def test_ids_cannot_be_counted_up(db: None) -> None:
    """Time-ordered, but with enough chance in each that a neighbour cannot be guessed."""
    one, two = (factories.make_session().public_id.int for _ in range(2))
    assert abs(two - one) > 2**40
    assert len({factories.make_session().public_id.int & (2**62 - 1) for _ in range(50)}) == 50


@pytest.mark.parametrize(
    "path",
    [
        "../../../../etc/passwd",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/settings.py",
        "....//....//etc/passwd",
        "%00",
        "archive%5c..%5c..%5csettings.py",
        "C:%5cwindows%5cwin.ini",
    ],
)
@pytest.mark.parametrize(
    "base",
    [
        f"{API}media/",
        f"{API}sessions/",
        "/faceprint/return/",
        "/admin/faceprint/verificationsession/media/",
        "/static/faceprint/",
    ],
)
def test_no_path_leads_to_a_file(superuser: Client, base: str, path: str) -> None:
    answer = superuser.get(f"{base}{path}")
    assert answer.status_code in (301, 302, 404)
    assert "root:" not in text_of(answer)
    assert "SECRET_KEY" not in text_of(answer)


# --- links --------------------------------------------------------------------------------------


def test_no_changed_link_of_a_return_is_taken(client: Client, victim: VerificationSession) -> None:
    link = return_token(victim)
    assert client.get(reverse("faceprint:return", args=[link])).status_code == 200
    other = factories.make_session()
    body, _, signature = link.partition(":")
    forged = [
        body,
        f"{body}:",
        f"{body}:{signature[:-1]}",
        f"{body}:{signature}x",
        f"{body.upper()}:{signature}",
        f"{other.public_id.hex}:{signature}",
        f"{body}:{return_token(other).partition(':')[2]}",
        link[::-1],
        link * 2,
        str(victim.public_id),
    ]
    for text in forged:
        for view in ("return", "return-status"):
            answer = client.get(reverse(f"faceprint:{view}", args=[text]))
            assert answer.status_code == 404, text
            assert not [secret for secret in SECRETS if secret in text_of(answer)]


def test_a_return_link_shows_nothing_of_the_person(client: Client, victim: VerificationSession) -> None:
    for view in ("return", "return-status"):
        html = text_of(client.get(reverse(f"faceprint:{view}", args=[return_token(victim)])))
        assert not [secret for secret in SECRETS if secret in html]
        assert victim.reference not in html


OPEN_REDIRECTS = [
    "https://evil.example.com/",
    "//evil.example.com/",
    "///evil.example.com/",
    "https:evil.example.com",
    "https:/evil.example.com",
    "https:\\\\evil.example.com",
    "/\\evil.example.com",
    "https://shop.example.com@evil.example.com/",
    "https://shop.example.com:443@evil.example.com/",
    "https://shop.example.com\\@evil.example.com/",
    "https://shop.example.com.evil.example.com/",
    "https://shop.example.com%2eevil.example.com/",
    "https://evil.example.com#shop.example.com",
    "https://evil.example.com?shop.example.com",
    "https://evil.example.com/shop.example.com",
    "https://shop.example.com:8443/",
    "https://shop.example.com\t.evil.example.com/",
    "https://shop.example.com\r\nLocation: https://evil.example.com/",
    "javascript:alert(1)//shop.example.com",
    "data:text/html,<script>alert(1)</script>",
    "https://ѕhop.example.com/",
    "https://[::1]/",
    "ftp://shop.example.com/",
]


@pytest.mark.parametrize("url", OPEN_REDIRECTS)
def test_no_return_url_leads_elsewhere(scenario: Scenario, settings: Any, url: str) -> None:
    settings.FACEPRINT = settings.FACEPRINT | {"RETURN_URL_HOSTS": ["shop.example.com"]}
    user = get_user_model().objects.create_user("caller")
    api = APIClient()
    api.force_authenticate(user)
    answer = api.post(f"{API}sessions/", {"plan": "25001", "return_url": url})
    assert answer.status_code == 400
    assert answer.json()["field"] == "return_url"
    assert not VerificationSession.objects.exists()


@pytest.mark.parametrize("name", ["next", "url", "return_url", "redirect", "to", "since"])
def test_no_parameter_of_the_return_page_sends_the_person_away(
    client: Client, victim: VerificationSession, name: str
) -> None:
    address = reverse("faceprint:return", args=[return_token(victim)])
    answer = client.get(address, {name: "https://evil.example.com/"})
    assert answer.status_code == 200
    assert "evil.example.com" not in text_of(answer)


# --- hosts --------------------------------------------------------------------------------------


def test_a_forged_host_is_refused(client: Client, superuser: Client, victim: VerificationSession) -> None:
    pages = [reverse("faceprint:return", args=[return_token(victim)]), "/admin/", f"{API}sessions/"]
    for page in pages:
        for browser in (client, superuser):
            assert browser.get(page, headers={"host": "evil.example.com"}).status_code == 400
            forwarded = browser.get(page, headers={"x-forwarded-host": "evil.example.com"})
            assert "evil.example.com" not in text_of(forwarded) + str(forwarded.headers)


def test_a_site_that_answers_to_every_host_still_sends_people_to_its_own(
    scenario: Scenario, settings: Any
) -> None:
    settings.ALLOWED_HOSTS = ["*"]
    user = get_user_model().objects.create_user("caller")
    api = APIClient(headers={"host": "evil.example.com"})
    api.force_authenticate(user)
    body = {"plan": "25001", "identity": {"name": "张三", "number": factories.NUMBER}}
    answer = api.post(f"{API}sessions/", body)
    assert answer.status_code == 201
    known = scenario.ledger(VerificationSession.objects.get())
    assert "evil.example.com" not in str(known)
    assert urlsplit(answer.json()["h5_url"]).netloc == urlsplit(settings.FACEPRINT["H5_URL"]).netloc


# --- requests that a browser is made to send ----------------------------------------------------


def addresses_that_change_something(session: VerificationSession) -> list[str]:
    """Every address that takes a POST, as the permission matrix has them; it misses none."""
    admin = [address_of(line, session, Client()) for line in ADMIN_LINES if line.method == "post"]
    changing = [line.name for line in API_LINES if line.method == "post"]
    api = [reverse(f"faceprint-api:{name}", args=[session.public_id]) for name in changing]
    forms = [
        reverse("admin:faceprint_plan_add"),
        reverse("admin:faceprint_plan_change", args=[session.plan_id]),
        reverse("admin:faceprint_alertrule_change", args=[AlertRule.objects.get(condition="attack").pk]),
    ]
    return [*dict.fromkeys([*admin, *forms, *api, f"{API}sessions/"])]


def test_nothing_is_done_for_another_site(superuser: Client, victim: VerificationSession) -> None:
    """CSRF: every address that changes something, with a good cookie and no token."""
    user = get_user_model().objects.get(username="root")
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(user)
    before = VerificationSession.objects.values().get()
    addresses = addresses_that_change_something(victim)
    assert len(addresses) > 15
    # The addresses of a job need one, and an export is written to the log.
    logged = AccessLog.objects.count()
    forged = {"q": "x", "action": "query_now", "reason": "audit", "number": factories.NUMBER}
    for address in addresses:
        for headers in ({}, {"origin": "https://evil.example.com"}, {"x-csrftoken": "x" * 32}):
            answer = browser.post(address, forged, headers=headers)
            assert answer.status_code == 403, address
            assert factories.NUMBER not in text_of(answer)
    assert VerificationSession.objects.values().get() == before
    assert AccessLog.objects.count() == logged


def test_no_page_can_be_framed(superuser: Client, victim: VerificationSession) -> None:
    pages = [
        reverse("admin:faceprint_verificationsession_change", args=[victim.pk]),
        reverse("faceprint:return", args=[return_token(victim)]),
    ]
    for page in pages:
        assert superuser.get(page)["X-Frame-Options"] == "DENY"


# --- bodies -------------------------------------------------------------------------------------


def send_raw(address: str, head: str, body: bytes = b"") -> socket.socket:
    parts = urlsplit(address)
    assert parts.hostname
    connection = socket.create_connection((parts.hostname, parts.port or 80), timeout=5)
    connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
    return connection


@pytest.mark.django_db(transaction=True)
def test_a_body_that_never_ends_holds_nothing_but_its_connection(live_server: Any) -> None:
    """Slow bodies: how long a server waits is the server's affair; meanwhile no row is locked or made."""
    user = get_user_model().objects.create_user("slow")
    token = Token.objects.create(user=user).key
    head = (
        f"POST {API}sessions/ HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Token {token}\n"
        "Content-Type: application/json\nContent-Length: 5000"
    )
    slow = [send_raw(live_server.url, head, b'{"plan": ') for _ in range(5)]
    session = factories.make_session(created_by=user)
    other = send_raw(
        live_server.url,
        f"GET {API}sessions/{session.public_id}/ HTTP/1.1\nHost: 127.0.0.1\n"
        f"Authorization: Token {token}\nConnection: close",
    )
    assert b" 200 " in other.recv(200)
    for connection in [*slow, other]:
        connection.close()
    assert VerificationSession.objects.count() == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("length", ["99999999999", "9" * 30])
def test_a_body_that_announces_itself_as_huge_is_refused_before_it_is_read(
    live_server: Any, length: str
) -> None:
    token = Token.objects.create(user=get_user_model().objects.create_user("huge")).key
    connection = send_raw(
        live_server.url,
        f"POST {API}sessions/ HTTP/1.1\nHost: 127.0.0.1\nAuthorization: Token {token}\n"
        f"Content-Type: application/json\nContent-Length: {length}\nConnection: close",
    )
    answer = connection.recv(100)
    connection.close()
    assert b" 413 " in answer


@pytest.mark.django_db
def test_many_fields_and_deep_nesting_are_refused(stranger: APIClient) -> None:
    for body in (
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
        b"{" + b",".join(b'"k%d":1' % number for number in range(5_000)) + b"}",
        b'{"consent": ' + b"[" * 3_000 + b"]" * 3_000 + b"}",
    ):
        answer = stranger.generic("POST", f"{API}sessions/", body, content_type="application/json")
        assert answer.status_code in (400, 413)
        assert answer["Content-Type"] == "application/problem+json"
