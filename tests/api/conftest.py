"""Callers of the API, with real tokens, against the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from django_faceprint.models import VerificationSession
from tests.factories import NUMBER
from tests.scenario import Scenario

NAME = "张三"
IDENTITY = {"name": NAME, "number": NUMBER}
ROOT = "/api/faceprint/"


@pytest.fixture
def caller(transactional_db: None) -> Callable[..., APIClient]:
    """``caller("one", "view_media")``: a client with the token of that user, who holds these permissions."""

    def make(name: str, *permissions: str) -> APIClient:
        user, _ = get_user_model().objects.get_or_create(username=name)
        user.user_permissions.set(
            Permission.objects.filter(content_type__app_label="faceprint", codename__in=permissions)
        )
        token, _ = Token.objects.get_or_create(user=user)
        client = APIClient()
        client.credentials(HTTP_AUTHORIZATION=f"Token {token.key}")
        return client

    return make


@pytest.fixture
def api(scenario: Scenario, caller: Callable[..., APIClient]) -> APIClient:
    """The caller "owner", without any permission."""
    return caller("owner")


@pytest.fixture
def start(api: APIClient) -> Callable[..., dict[str, Any]]:
    """Starts a session as "owner" and gives it in the API's words."""

    def begin(plan: str = "25001", **more: Any) -> dict[str, Any]:
        body: dict[str, Any] = {"plan": plan, "reference": "order-1", "identity": IDENTITY} | more
        answer = api.post(
            f"{ROOT}sessions/", {key: value for key, value in body.items() if value is not None}
        )
        assert answer.status_code == 201, answer.content
        return dict(answer.json())

    return begin


def row(session: dict[str, Any]) -> VerificationSession:
    """The row behind a session."""
    return VerificationSession.objects.select_related("plan").get(public_id=session["id"])


def finish(scenario: Scenario, session: dict[str, Any], outcome: str = "pass", **more: Any) -> None:
    """The person goes through the page, and the engine learns of it."""
    scenario.finish(row(session), outcome, **more)
    scenario.back(row(session))
