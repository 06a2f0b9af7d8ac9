"""Running management commands as an operator does."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import translation

# Fixtures of other folders that commands are tested with too.
from tests.alerts.conftest import smtp  # noqa: F401


@dataclass
class Done:
    """What a command printed, and its exit status."""

    status: int
    out: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run() -> Iterator[Run]:
    """``run("faceprint_status", "--json")``, in English."""

    def call(name: str, *arguments: str) -> Done:
        out = io.StringIO()
        try:
            call_command(name, *arguments, stdout=out, stderr=out, no_color=True)
        except SystemExit as exit_:
            return Done(int(exit_.code or 0), out.getvalue())
        return Done(0, out.getvalue())

    with translation.override("en"):
        yield call
