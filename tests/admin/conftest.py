"""Who looks, from nobody to everybody, and what they must never see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from tests import factories

#: What no page may hold: the synthetic person's name and number, and the beginning of every token.
SECRETS = (factories.NAME, factories.NUMBER, factories.TOKEN)


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
    """May read records, but not see faces."""
    return login("view_verificationsession")


@pytest.fixture
def operator(login: Callable[..., Client]) -> Client:
    """May read records and have Baidu asked again."""
    return login("view_verificationsession", "refresh_session")


@pytest.fixture
def full_viewer(login: Callable[..., Client]) -> Client:
    """May read records and see faces and who looked."""
    return login("view_verificationsession", "view_media", "view_accesslog")
