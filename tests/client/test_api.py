"""One test per interface, against the samples of the API reference."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from django_faceprint.client import (
    AllResult,
    Authorization,
    ErrorClass,
    FaceprintClient,
    Identity,
    MatchImage,
    MediaResult,
    SimpleResult,
    StatResult,
    VerifyToken,
)
from django_faceprint.exceptions import AuthenticationFailed, InvalidInput, Rejected

from .conftest import VERIFY_TOKEN
from .server import Script, failure, gateway, success

GENERATE = "/verifyToken/generate"


@pytest.mark.parametrize(
    ("plan_id", "sent"), [("25000", 25000), (16144, 16144), ("007", "007"), (" 25 ", 25)]
)
def test_generate(server: Script, client: FaceprintClient, plan_id: Any, sent: Any) -> None:
    server.then(GENERATE, success({"verify_token": VERIFY_TOKEN}))

    answer = client.generate_verify_token(plan_id)

    assert answer.ok
    assert answer.result == VERIFY_TOKEN
    assert isinstance(answer.result, VerifyToken)
    assert f"{answer.result}" == VERIFY_TOKEN
    assert VERIFY_TOKEN not in repr(answer)
    assert VERIFY_TOKEN not in repr(answer.result)
    (request,) = server.asked(GENERATE)
    assert request.json == {"plan_id": sent}


def test_generate_with_return_urls(server: Script, client: FaceprintClient) -> None:
    server.then(GENERATE, success([{"verify_token": VERIFY_TOKEN}]))

    client.generate_verify_token(
        "25000",
        success_url="https://app.example.com/kyc/ok?sid=42",
        failed_url="https://app.example.com/kyc/ng?sid=42",
    )

    assert server.asked(GENERATE)[0].json["redirect_config"] == {
        "success_url": "https://app.example.com/kyc/ok?sid=42",
        "failed_url": "https://app.example.com/kyc/ng?sid=42",
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example.com",
        "//x",
        "javascript:alert(1)",
        "ftp://x/",
        "https://",
        "https://a b",
        "https://u@x/",
    ],
)
def test_return_urls_are_checked(server: Script, client: FaceprintClient, url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.generate_verify_token("25000", failed_url=url)

    assert (caught.value.field, caught.value.code) == ("failed_url", "url")
    assert not server.requests


@pytest.mark.parametrize(
    "result",
    [None, [], {}, 1, "x", {"verify_token": ""}, {"verify_token": 5}, {"verify_token": "a b"}, [{}, {}]],
)
def test_success_without_a_token_is_rejected(server: Script, client: FaceprintClient, result: Any) -> None:
    server.then(GENERATE, success(result))

    with pytest.raises(Rejected) as caught:
        client.generate_verify_token("25000")

    assert caught.value.error is not None
    assert caught.value.error.error_class is ErrorClass.UNKNOWN
    assert caught.value.raw


def test_submit_identity(server: Script, client: FaceprintClient) -> None:
    server.then("/idcard/submit", success(1))
    identity = Identity.checked("张三", "11010519491231002x", 0)

    answer = client.submit_identity(VERIFY_TOKEN, identity)

    assert answer.ok
    assert answer.result is None
    assert server.asked("/idcard/submit")[0].json == {
        "verify_token": VERIFY_TOKEN,
        "id_name": "张三",
        "id_no": "11010519491231002X",
        "certificate_type": 0,
    }


def test_identity_that_was_never_checked_is_not_sent(server: Script, client: FaceprintClient) -> None:
    with pytest.raises(InvalidInput):
        client.submit_identity(VERIFY_TOKEN, Identity("张三", "1"))

    assert not server.requests


def test_upload_match_image_succeeds_with_null(server: Script, client: FaceprintClient) -> None:
    server.then("/uploadMatchImage", success(None))
    image = MatchImage(b"\xff\xd8picture", "JPEG", 10, 10, "LOW", "HIGH")

    assert client.upload_match_image(VERIFY_TOKEN, image).ok

    assert server.asked("/uploadMatchImage")[0].json == {
        "verify_token": VERIFY_TOKEN,
        "image": base64.b64encode(b"\xff\xd8picture").decode(),
        "quality_control": "LOW",
        "liveness_control": "HIGH",
    }


def test_bad_match_image_is_the_callers_mistake_not_a_verdict(
    server: Script, client: FaceprintClient
) -> None:
    server.then("/uploadMatchImage", failure(222202, "pic not has face"))

    with pytest.raises(Rejected) as caught:
        client.upload_match_image(VERIFY_TOKEN, MatchImage(b"x", "JPEG", 1, 1))

    assert caught.value.error is not None
    assert caught.value.error.error_class is ErrorClass.CALLER


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        (FaceprintClient.result_simple, "/result/simple", SimpleResult),
        (FaceprintClient.result_stat, "/result/stat", StatResult),
        (FaceprintClient.result_media, "/result/media/query", MediaResult),
        (FaceprintClient.result_all, "/result/getall", AllResult),
    ],
)
def test_result_interfaces(
    server: Script, client: FaceprintClient, method: Callable[..., Any], path: str, kind: type
) -> None:
    server.then(path, success({}), failure(283450, "认证尚未开始"), failure("222351", "身份证姓名不匹配"))

    assert isinstance(method(client, VERIFY_TOKEN).result, kind)
    pending = method(client, VERIFY_TOKEN)
    failed = method(client, VERIFY_TOKEN)

    assert (pending.ok, pending.result, pending.error.error_class) == (False, None, ErrorClass.NOT_STARTED)
    assert (failed.ok, failed.result, failed.error.error_class) == (
        False,
        None,
        ErrorClass.VERIFICATION_FAILED,
    )
    assert pending.error.message == "认证尚未开始"
    assert pending.log_id == "1800000009"
    assert b"283450" in pending.raw


@pytest.mark.parametrize(
    "verify_token", ["", "short", "with space in it", "Ab3dEf6hIj9kLm2n\n", "x" * 129, None, 5]
)
def test_verify_token_is_checked(server: Script, client: FaceprintClient, verify_token: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        client.result_detail(verify_token)

    assert caught.value.field == "verify_token"
    assert not server.requests


def test_h5_url_encodes_return_urls_whole(new_client: Callable[..., FaceprintClient]) -> None:
    client = new_client(h5_url="https://brain.baidu.com/face/print/")
    back = "https://app.example.com/#/kyc?sid=42&state=a b+c/张".replace(" ", "%20")

    url = client.h5_url(VERIFY_TOKEN, success_url=back, failed_url=back)

    assert url.startswith(
        f"https://brain.baidu.com/face/print/?token={VERIFY_TOKEN}&successUrl=https%3A%2F%2F"
    )
    assert urlsplit(url).fragment == ""
    assert parse_qs(urlsplit(url).query) == {
        "token": [VERIFY_TOKEN],
        "successUrl": [back],
        "failedUrl": [back],
    }


def test_h5_url_alone(client: FaceprintClient) -> None:
    assert client.h5_url(VERIFY_TOKEN) == f"https://brain.baidu.com/face/print/?token={VERIFY_TOKEN}"


class SignatureAuth:
    """Another scheme: a header, and nothing to renew."""

    def authorize(self, method: str, path: str) -> Authorization:
        return Authorization(headers={"Authorization": f"bce-auth-v1/{method}{path}"})

    def refused(self, authorization: Authorization) -> bool:
        return False

    def check(self) -> None:
        return None


def test_authentication_can_be_replaced(server: Script, new_client: Callable[..., FaceprintClient]) -> None:
    client = new_client(authentication=SignatureAuth())
    server.then(GENERATE, success({"verify_token": VERIFY_TOKEN}), gateway(110))

    client.generate_verify_token("25000")
    with pytest.raises(AuthenticationFailed):
        client.generate_verify_token("25000")

    assert not server.asked("/oauth/2.0/token")
    assert len(server.requests) == 2
    assert server.requests[0].query == {}
    assert server.requests[0].headers["authorization"].endswith("/faceprint/verifyToken/generate")


def test_a_closed_client_opens_again(server: Script, client: FaceprintClient) -> None:
    server.always("/result/detail", success({}))
    with client:
        client.result_detail(VERIFY_TOKEN)

    assert client.result_detail(VERIFY_TOKEN).ok
