"""Nothing that a failure leaves behind carries an identity, a token, a key or a URL."""

from __future__ import annotations

import io
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from django_faceprint.client import Downloader, FaceprintClient, Identity, MatchImage
from django_faceprint.exceptions import FaceprintConfigurationError, FaceprintError, InvalidInput, UnsafeMedia

from .conftest import API_KEY, SECRET_KEY, VERIFY_TOKEN
from .server import (
    ACCESS_TOKEN,
    Respond,
    RunningServer,
    Script,
    answer,
    drip,
    failure,
    gateway,
    hang,
    reset,
    success,
)

NAME = "张三"
NUMBER = "11010519491231002X"
SECRETS = (
    ACCESS_TOKEN,
    VERIFY_TOKEN,
    API_KEY,
    SECRET_KEY,
    NAME,
    NUMBER,
    "access_token=",
    "authorization=",
    "signature",
)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The exception and everything it drags along."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        current = pending.pop()
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        pending += [current.__cause__, current.__context__]


def traces(error: BaseException) -> str:
    """All that logs, task results and error mails print of an exception."""
    lines = traceback.format_exception(error)
    for part in chain(error):
        lines += [str(part), repr(part), repr(part.args), repr(getattr(part, "__notes__", ""))]
        lines.append(repr({key: value for key, value in vars(part).items() if key != "raw"}))
    # The text of the test's own lines is no leak.
    return "\n".join(line for line in lines if "test_secrets.py" not in line)


def assert_silent(error: BaseException) -> None:
    text = traces(error)
    for secret in SECRETS:
        assert secret not in text
    assert [type(part) for part in chain(error)] == [type(error)], "no cause, no context"
    assert all(secret not in repr(pickle.loads(pickle.dumps(error))) for secret in SECRETS)  # noqa: S301


LEAKY = f"{NAME} {NUMBER} {VERIFY_TOKEN} https://x/?access_token={ACCESS_TOKEN}"


@pytest.mark.parametrize(
    "step",
    [
        reset,
        hang,
        drip(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"),
        Respond(f"<html>{LEAKY}</html>".encode()),
        Respond(f'{{"x": "{LEAKY}", "n": NaN}}'.encode()),
        Respond(LEAKY.encode(), length=5000),
        Respond(LEAKY.encode(), 502),
        answer({"error": LEAKY, "error_description": LEAKY}, 401),
        gateway(110, LEAKY),
        gateway(18, LEAKY),
        gateway(LEAKY, LEAKY),
        failure(283400, LEAKY),
        failure(283435, LEAKY),
        failure(424242, LEAKY, log_id=LEAKY),
        failure(None, LEAKY),
        Respond(b"", 302, {"Location": f"https://x/?access_token={ACCESS_TOKEN}"}),
        Respond(b"not chunked", headers={"Transfer-Encoding": "chunked", "X-Echo": VERIFY_TOKEN}),
    ],
)
def test_failures_of_calls_are_silent(
    server: Script, new_client: Callable[..., FaceprintClient], step: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    client = new_client(timeout=(0.3, 0.3), total_timeout=0.4)
    client.check_credentials()
    server.always("/idcard/submit", step)

    caught: FaceprintError | FaceprintConfigurationError | None = None
    try:
        client.submit_identity(VERIFY_TOKEN, Identity.checked(NAME, NUMBER))
    except (FaceprintError, FaceprintConfigurationError) as error:
        caught = error

    assert caught is not None
    caught.error = None  # its cleaned message is tested with the codes
    assert_silent(caught)
    out, err = capfd.readouterr()
    assert not out
    assert not err


@pytest.mark.parametrize("api_url", ["http://127.0.0.1:1", "https://nowhere.invalid", "http://[::1]:1"])
def test_failures_to_connect_are_silent(new_client: Callable[..., FaceprintClient], api_url: str) -> None:
    with pytest.raises(FaceprintError) as caught:
        new_client(api_url=api_url).result_detail(VERIFY_TOKEN)

    assert_silent(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        answer({"error": "invalid_client", "error_description": f"unknown client id {API_KEY}"}, 401),
        answer({"error": "invalid_client", "error_description": SECRET_KEY}, 401),
        answer({"access_token": f"{ACCESS_TOKEN} {SECRET_KEY}"}),
        reset,
    ],
)
def test_failures_of_the_token_interface_are_silent(
    server: Script, client: FaceprintClient, step: Any
) -> None:
    server.always("/oauth/2.0/token", step)

    with pytest.raises((FaceprintError, FaceprintConfigurationError)) as caught:
        client.check_credentials()

    caught.value.error = None
    assert_silent(caught.value)


def test_success_in_an_unknown_form_is_silent(server: Script, client: FaceprintClient) -> None:
    server.always("/result/detail", success(LEAKY))

    with pytest.raises(FaceprintError) as caught:
        client.result_detail(VERIFY_TOKEN)

    assert_silent(caught.value)
    assert NUMBER.encode() in (caught.value.raw or b"")


def test_raw_answer_is_not_pickled(server: Script, client: FaceprintClient) -> None:
    server.always("/result/detail", Respond(LEAKY.encode()))

    with pytest.raises(FaceprintError) as caught:
        client.result_detail(VERIFY_TOKEN)

    copy = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert type(copy) is type(caught.value)
    assert str(copy) == str(caught.value)
    assert copy.raw is None
    assert copy.error == caught.value.error


@pytest.mark.parametrize(
    "arguments",
    [(NAME, NUMBER + "9"), (NAME + NUMBER, NUMBER), (NAME, "110105194912310021"), (NAME, NUMBER, NUMBER)],
)
def test_refused_inputs_are_not_repeated(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidInput) as caught:
        Identity.checked(*arguments)

    assert_silent(caught.value)
    assert NUMBER not in str(caught.value.params)


def _cut_picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((2000, 1000), 50).save(file, "JPEG", comment=NUMBER)
    return file.getvalue()[:-5000]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xd8\xff\xe0" + NUMBER.encode() * 10, "image_damaged"),
        (NUMBER.encode(), "image_format"),
        (_cut_picture(), "image_damaged"),
    ],
)
def test_refused_pictures_are_silent(data: bytes, code: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        MatchImage.checked(data, scale_down=True)

    assert caught.value.code == code
    assert_silent(caught.value)


@pytest.mark.parametrize(
    "step",
    [
        reset,
        hang,
        Respond(b"x", length=9),
        Respond(b"x", 403),
        Respond(b"x", 500),
        Respond(b"", 302, {"Location": f"http://10.0.0.1/?authorization={VERIFY_TOKEN}"}),
        Respond(b"x", headers={"Content-Encoding": "gzip"}),
        Respond(b"x" * 200),
    ],
)
@pytest.mark.parametrize("begin", ["fetch", "download"])
def test_failures_of_downloads_are_silent(step: Any, begin: str) -> None:
    with RunningServer() as server:
        server.always("", step)
        downloader = Downloader(
            allowed_hosts=[f"127.0.0.1:{server.port}"],
            allow_private=True,
            timeout=(0.3, 0.3),
            total_timeout=0.5,
            max_bytes=100,
        )
        url = f"{server.url}/{VERIFY_TOKEN}.jpg?authorization=signature"
        with pytest.raises(FaceprintError) as caught, getattr(downloader, begin)(url) as body:
            list(body.chunks())
        downloader.close()

    assert_silent(caught.value)


@pytest.mark.parametrize(
    "url", [f"https://evil.example/{VERIFY_TOKEN}", f"https://{NUMBER}@brain.baidu.com/", "::"]
)
def test_refused_urls_are_not_repeated(url: str) -> None:
    with pytest.raises(UnsafeMedia) as caught:
        Downloader(allowed_hosts=["brain.baidu.com"]).fetch(url)

    assert_silent(caught.value)


def test_representations_hide_what_they_hold(client: FaceprintClient) -> None:
    things = (client, Identity(NAME, NUMBER), MatchImage(b"picture", "JPEG", 1, 1), client._authentication)
    for thing in things:
        assert all(secret not in repr(thing) for secret in (*SECRETS, "picture"))
