"""A smoke run against the real Baidu. Runs only when the environment says with which account.

    FACEPRINT_LIVE_API_KEY=… FACEPRINT_LIVE_SECRET_KEY=… FACEPRINT_LIVE_PLAN_ID=… pytest tests/live

It obtains an access_token, issues one verify_token and asks every result interface about it. Nobody is
verified, so nothing is billed; the token expires by itself after two hours. What it prints contains no
secrets. With ``FACEPRINT_LIVE_VERIFY_TOKEN``, of a session that was finished on the page, the results are
read and every file that Baidu names is downloaded and checked.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import pytest

from django_faceprint.client import CallRecord, Downloader, ErrorClass, FaceprintClient
from django_faceprint.evidence.media_types import describe_image, describe_video
from django_faceprint.exceptions import AuthenticationFailed, FaceprintError

VARIABLES = ("FACEPRINT_LIVE_API_KEY", "FACEPRINT_LIVE_SECRET_KEY", "FACEPRINT_LIVE_PLAN_ID")

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(
        not all(os.environ.get(name) for name in VARIABLES), reason=f"needs {', '.join(VARIABLES)}"
    ),
]


@pytest.fixture
def client() -> Iterator[FaceprintClient]:
    with FaceprintClient(
        api_key=os.environ["FACEPRINT_LIVE_API_KEY"], secret_key=os.environ["FACEPRINT_LIVE_SECRET_KEY"]
    ) as client:
        yield client


def test_the_credentials_are_accepted() -> None:
    calls: list[CallRecord] = []
    with FaceprintClient(
        api_key=os.environ["FACEPRINT_LIVE_API_KEY"],
        secret_key=os.environ["FACEPRINT_LIVE_SECRET_KEY"],
        on_call=calls.append,
    ) as client:
        client.check_credentials()
    assert [(call.endpoint, call.outcome) for call in calls] == [("oauth_token", "ok")]


def test_a_wrong_secret_is_told_apart() -> None:
    with (
        FaceprintClient(api_key=os.environ["FACEPRINT_LIVE_API_KEY"], secret_key="0" * 32) as wrong,
        pytest.raises(AuthenticationFailed),
    ):
        wrong.check_credentials()


def test_the_plan_issues_a_token_about_which_nothing_is_known_yet(client: FaceprintClient) -> None:
    token = client.generate_verify_token(
        os.environ["FACEPRINT_LIVE_PLAN_ID"],
        success_url="https://example.com/ok",
        failed_url="https://example.com/failed",
    ).result
    assert token
    assert client.h5_url(token).startswith("https://brain.baidu.com/face/print/")
    for ask in (
        client.result_detail,
        client.result_simple,
        client.result_stat,
        client.result_media,
        client.result_all,
    ):
        try:
            answer = ask(token)
        except FaceprintError as error:
            said = error.error
        else:
            said = answer.error
        print(ask.__name__, said)
        assert said is None or said.error_class in (
            ErrorClass.NOT_STARTED,
            ErrorClass.UNKNOWN,
            ErrorClass.GONE,
        )


@pytest.mark.skipif(
    not os.environ.get("FACEPRINT_LIVE_VERIFY_TOKEN"), reason="needs FACEPRINT_LIVE_VERIFY_TOKEN"
)
def test_a_finished_session_is_read_and_its_files_are_whole(client: FaceprintClient) -> None:
    token = os.environ["FACEPRINT_LIVE_VERIFY_TOKEN"]
    pictures, videos = [], []
    simple = client.result_simple(token)
    if simple.result is not None and simple.result.face_url:
        pictures.append(simple.result.face_url)
    everything = client.result_all(token)
    if everything.result is not None:
        pictures += [attempt.face_url for attempt in everything.result.attempts if attempt.face_url]
    media = client.result_media(token)
    if media.result is not None:
        pictures += media.result.images
        videos += [*media.result.process_videos, *media.result.videos]
    assert pictures or videos
    downloader = Downloader(allowed_hosts=("brain.baidu.com", "*.bcebos.com"))
    for urls, describe in ((pictures, describe_image), (videos, describe_video)):
        for url in urls:
            with downloader.fetch(url) as body:
                content = b"".join(body.chunks())
            print(describe(io.BytesIO(content)), len(content), "plain http" if body.plain_http else "https")
