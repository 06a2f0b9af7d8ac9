"""A finished verification to attack, and people of different powers."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from django_faceprint.models import VerificationSession
from tests import factories

#: What no answer to an attacker may hold.
SECRETS = (factories.NAME, factories.NUMBER, factories.TOKEN)


@pytest.fixture
def victim(db: None) -> VerificationSession:
    """A record with files that belongs to somebody else."""
    owner = get_user_model().objects.create_user("owner", "", "secret")
    session = factories.make_passed_session(reference="victim-1", created_by=owner)
    for kind in ("face", "id_front", "video"):
        factories.make_stored_asset(session, kind)
    return session


@pytest.fixture
def superuser(db: None) -> Client:
    """Who may everything, and reads English."""
    user = get_user_model().objects.create_superuser("root", "", "secret")
    browser = Client(headers={"accept-language": "en"})
    browser.force_login(user)
    return browser


def text_of(answer: Any) -> str:
    """The whole body of an answer, streamed or not."""
    body = b"".join(answer.streaming_content) if answer.streaming else answer.content
    return body.decode("utf-8", "replace")
