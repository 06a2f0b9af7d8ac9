"""Clients against a scripted server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings

from django_faceprint.client import CallRecord, FaceprintClient

from .server import RunningServer, Script, token

# The same examples everywhere, however slow the machine.
settings.register_profile("faceprint", deadline=None, derandomize=True, database=None)
settings.load_profile("faceprint")

API_KEY = "synthetic-api-key"
SECRET_KEY = "synthetic-secret-key"
VERIFY_TOKEN = "Ab3dEf6hIj9kLm2nOp5qRs8t"


class Clock:
    """A clock that tests move by hand."""

    def __init__(self) -> None:
        self.time = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.time

    def advance(self, **delta: float) -> None:
        self.time += timedelta(**delta)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[Script]:
    """A server that hands out access tokens and otherwise answers what the test scripts."""
    with RunningServer() as script:
        script.always("/oauth/2.0/token", token())
        yield script


@pytest.fixture
def records() -> list[CallRecord]:
    return []


@pytest.fixture
def new_client(
    server: Script, clock: Clock, records: list[CallRecord]
) -> Iterator[Callable[..., FaceprintClient]]:
    """Makes clients of the scripted server; keyword arguments replace the defaults."""
    clients: list[FaceprintClient] = []

    def new(**options: Any) -> FaceprintClient:
        defaults: dict[str, Any] = {
            "api_key": API_KEY,
            "secret_key": SECRET_KEY,
            "api_url": server.url,
            "clock": clock,
            "timeout": (0.5, 0.5),
            "total_timeout": 2.0,
            "on_call": records.append,
        }
        client = FaceprintClient(**{**defaults, **options})
        clients.append(client)
        return client

    yield new
    for client in clients:
        client.close()


@pytest.fixture
def client(new_client: Callable[..., FaceprintClient]) -> FaceprintClient:
    return new_client()
