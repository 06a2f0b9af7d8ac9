"""Users with different permissions, records to show, and how tests read pages."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from django_faceprint.models import MediaAsset, UpstreamAnswer, VerificationAttempt, VerificationSession
from tests import factories

#: Never on a page: the synthetic person's name and number, and the beginning of every token.
SECRETS = (factories.NAME, factories.NUMBER, factories.TOKEN)
LIST = "/admin/faceprint/verificationsession/"
Kind = MediaAsset.Kind


@pytest.fixture
def login(db: None, client: Client) -> Callable[..., Client]:
    """``login("view_verificationsession")``: a staff member with these permissions; the client."""

    def login(*permissions: str, **values: Any) -> Client:
        user = get_user_model().objects.create_user(
            values.pop("username", "operator"), "", "secret", **{"is_staff": True} | values
        )
        found = Permission.objects.filter(content_type__app_label="faceprint", codename__in=permissions)
        assert found.count() == len(permissions)
        user.user_permissions.set(found)
        client.force_login(user)
        # English, so that the tests read the msgids.
        client.defaults["HTTP_ACCEPT_LANGUAGE"] = "en"
        return client

    return login


@pytest.fixture
def viewer(login: Callable[..., Client]) -> Client:
    """Views records without faces."""
    return login("view_verificationsession")


@pytest.fixture
def operator(login: Callable[..., Client]) -> Client:
    """Views records and requests queries."""
    return login("view_verificationsession", "refresh_session")


@pytest.fixture
def full_viewer(login: Callable[..., Client]) -> Client:
    """Views records, faces and the access log."""
    return login("view_verificationsession", "view_media", "view_accesslog")


def page_of(session: VerificationSession) -> str:
    return reverse("admin:faceprint_verificationsession_change", args=[session.pk])


def action_of(session: VerificationSession, name: str) -> str:
    return reverse(f"admin:faceprint_verificationsession_{name}", args=[session.pk])


def content_of(asset: MediaAsset) -> str:
    return reverse("admin:faceprint_verificationsession_media", args=[asset.public_id])


def text_of(response: Any) -> str:
    """The text of a page."""
    html = re.sub(r"<(script|style).*?</\1>", "", response.content.decode(), flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def messages_of(response: Any) -> list[str]:
    """Django's messages on a page."""
    return [str(message) for message in response.context["messages"]]


def full_session() -> VerificationSession:
    """A passed record with everything that a page can show."""
    session = factories.make_passed_session(
        reference="ORDER-1",
        purpose="account opening",
        plan=factories.make_plan(plan_id="25001", identity_entry="ocr"),
        ocr={"name": factories.NAME, "number": factories.NUMBER, "address": "浙江省杭州市文三路1号"},
        confirmed={"name": "张三峰", "number": factories.NUMBER},
        stat={
            "OCR": [{"error_code": "0", "count": 2}],
            "VideoLiveness": [{"error_code": "223120", "count": 7}],
        },
    )
    for kind in (Kind.FACE, Kind.ID_FRONT, Kind.PROCESS_VIDEO, Kind.FRAME):
        factories.make_stored_asset(session, kind)
    factories.make_asset(session, Kind.VIDEO, state="not_provided", reason="recording_off")
    VerificationAttempt.objects.create(
        session=session, order=1, passed=False, code="223120", score=12.5, threshold=80, risk_tag="camera"
    )
    factories.make_call(session, endpoint="verify_token_generate", log_id="1390000000000000001")
    UpstreamAnswer.objects.create(
        session=session, endpoint="result_detail", body="{}", body_index="x", log_id="1390000000000000002"
    )
    return session


def look_up(client: Client, text: str) -> Any:
    """The response of the lookup form."""
    return client.post(f"{LIST}lookup/", {"q": text})


def link(response: Any, relation: str) -> str:
    """Where the page's link to another page goes; "" when there is none."""
    found = re.search(rf'<a href="([^"]*)" rel="{relation}">', response.content.decode())
    return unescape(found[1]).removeprefix("?") if found else ""
