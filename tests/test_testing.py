"""The plugin for host projects, used as a host uses it."""

from __future__ import annotations

from typing import Any

import pytest

from django_faceprint.client import Identity
from django_faceprint.testing import FaceprintSandbox, faceprint_sandbox  # noqa: F401  (a fixture)
from django_faceprint.verification import StartRequest, start_session
from tests.factories import NUMBER


@pytest.mark.parametrize(
    ("outcome", "code", "verdict", "archive"),
    [
        ("pass", None, "passed", "complete"),
        ("fail", "223120", "failed", "complete"),
        ("giveup", None, "pending", "waiting"),
    ],
)
def test_a_host_can_test_its_verifications(
    faceprint_sandbox: FaceprintSandbox,  # noqa: F811
    outcome: str,
    code: Any,
    verdict: str,
    archive: str,
) -> None:
    identity = Identity.checked("张三", NUMBER, 0)
    session = start_session(StartRequest(plan_id="25001", identity=identity))
    faceprint_sandbox.verify(session, outcome, code=code)
    assert (session.verdict, session.archive_state) == (verdict, archive)
