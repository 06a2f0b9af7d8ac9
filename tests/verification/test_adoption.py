"""Sessions that another system started: their evidence is archived like that of ours."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from django_faceprint.base import deadlines
from django_faceprint.client import FaceprintClient, Identity
from django_faceprint.engine import queue
from django_faceprint.exceptions import FaceprintConfigurationError, InvalidInput
from django_faceprint.models import VerificationSession
from django_faceprint.records import statistics
from django_faceprint.verification import Adoption, adopt
from django_faceprint.verification.adoption import ISSUE_TOLERANCE, SOON
from django_faceprint.verification.consent import of_session
from tests.factories import NAME, NUMBER
from tests.scenario import Scenario

Archived = Callable[[VerificationSession], None]
PLAN = "25005"


@pytest.fixture
def elsewhere(scenario: Scenario) -> Callable[..., str]:
    """Another system obtains a verify_token, and its person passes."""

    def begin(plan_id: str = PLAN, *, finish: bool = True) -> str:
        with FaceprintClient(
            api_key="sandbox-api-key",
            secret_key="sandbox-secret-key",
            api_url=scenario.sandbox.url,
        ) as client:
            token = str(client.generate_verify_token(plan_id).result)
            if scenario.plans[plan_id].needs_identity:
                client.submit_identity(token, Identity.checked(NAME, NUMBER))
        if finish:
            scenario.control("POST", "finish", {"verify_token": token, "outcome": "pass"})
        return token

    return begin


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("plan_id", ["25001", "25002", "25005"])
def test_an_adopted_session_is_archived(
    scenario: Scenario,
    elsewhere: Callable[..., str],
    assert_archived: Archived,
    clock: Any,
    plan_id: str,
    known: bool,
) -> None:
    issued_at = clock()
    token = elsewhere(plan_id)
    clock.advance(hours=20)
    adopted = adopt(
        Adoption(token, plan_id, issued_at=issued_at if known else None, reference="old-1", purpose="loan")
    )
    assert adopted.is_new
    scenario.work()
    session = scenario.fresh(adopted.session)
    assert (session.verdict, session.archive_state, session.status) == ("passed", "complete", "passed")
    assert (session.reference, session.purpose, session.environment) == ("old-1", "loan", "sandbox")
    assert session.adopted_at == clock()
    assert_archived(session)


def test_a_known_issue_gives_the_deadlines(
    scenario: Scenario, elsewhere: Callable[..., str], clock: Any
) -> None:
    issued_at = clock()
    token = elsewhere(finish=False)
    clock.advance(hours=1)
    session = adopt(Adoption(token, PLAN, issued_at=issued_at)).session
    early, late = issued_at - ISSUE_TOLERANCE, issued_at + ISSUE_TOLERANCE
    assert deadlines.SessionDeadlines(
        session.expires_at,
        session.media_deadline,
        session.results_deadline,
        session.media_give_up_at,
        session.results_give_up_at,
    ) == deadlines.session_deadlines(early, late)


def test_without_an_issue_everything_may_expire_at_any_moment(
    scenario: Scenario, elsewhere: Callable[..., str], clock: Any
) -> None:
    with_time = adopt(Adoption(elsewhere(), PLAN, issued_at=clock())).session
    token = elsewhere()
    session = adopt(Adoption(token, PLAN)).session
    assert session.media_deadline == session.results_deadline == clock() + SOON
    give_up_at = deadlines.session_deadlines(clock(), clock())
    assert (session.media_give_up_at, session.results_give_up_at) == (
        give_up_at.media_give_up_at,
        give_up_at.results_give_up_at,
    )
    assert statistics.at_risk(timedelta(hours=1)) == 1
    first, second = queue.claim(clock(), limit=2)
    assert (first.session_pk, second.session_pk) == (session.pk, with_time.pk)
    queue.give_back([first, second])

    # Once Baidu has told when the person was verified, the deadlines are those of any other session.
    scenario.fault("media", "http_500")
    scenario.work()
    session = scenario.fresh(session)
    assert session.verified_at == clock()
    assert {asset.deadline for asset in session.assets.wanted()} == {clock() + deadlines.RESULTS_LIFE}


def test_a_person_who_is_still_on_the_page_is_waited_for(
    scenario: Scenario, elsewhere: Callable[..., str], assert_archived: Archived, clock: Any
) -> None:
    token = elsewhere(finish=False)
    session = adopt(Adoption(token, PLAN)).session
    scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.status, session.failure_count) == ("pending", "awaiting_user", 0)
    clock.advance(hours=1)
    scenario.control("POST", "finish", {"verify_token": token, "outcome": "pass"})
    clock.advance(minutes=15)
    scenario.work()
    session = scenario.fresh(session)
    assert session.archive_state == "complete"
    assert_archived(session)


def test_an_adopted_session_nobody_completes_is_abandoned(
    scenario: Scenario, elsewhere: Callable[..., str], clock: Any
) -> None:
    session = adopt(Adoption(elsewhere(finish=False), PLAN)).session
    for _ in range(20):
        clock.advance(minutes=15)
        scenario.work()
    session = scenario.fresh(session)
    assert (session.verdict, session.status, session.has_outstanding_work) == ("expired", "abandoned", False)


def test_a_token_is_adopted_once(scenario: Scenario, elsewhere: Callable[..., str]) -> None:
    token = elsewhere()
    first = adopt(Adoption(token, PLAN, reference="a"))
    again = adopt(Adoption(token, PLAN, reference="b"))
    assert (again.is_new, again.session.pk, again.session.reference) == (False, first.session.pk, "a")
    ours = scenario.start()
    assert adopt(Adoption(ours.verify_token, "25001")).session.pk == ours.pk
    assert VerificationSession.objects.count() == 2


def test_the_person_is_kept_as_of_any_session(scenario: Scenario, elsewhere: Callable[..., str]) -> None:
    session = adopt(
        Adoption(elsewhere(), PLAN, identity=Identity.checked(NAME, NUMBER), consent_reference="c-9")
    ).session
    session.refresh_from_db()
    ours = scenario.start("25001")
    assert (session.identity_name, session.identity_number) == (NAME, NUMBER)
    assert session.number_index == ours.number_index
    found = of_session(session)
    assert found is not None
    assert found.reference == "c-9"


@pytest.mark.parametrize(
    ("changed", "field", "code"),
    [
        ({"verify_token": "short"}, "verify_token", "token_format"),
        ({"verify_token": "x" * 24 + "\n"}, "verify_token", "token_format"),
        ({"plan_id": "99999"}, "plan", "unknown_plan"),
        ({"plan_id": "x"}, "plan_id", "plan_id"),
        ({"reference": NUMBER}, "reference", "looks_personal"),
        ({"purpose": "a\x00b"}, "purpose", "control_characters"),
        ({"consent_reference": "c" * 101}, "consent_reference", "too_long"),
    ],
)
def test_bad_input_is_named_and_never_repeated(
    scenario: Scenario, changed: dict[str, str], field: str, code: str
) -> None:
    given = {"verify_token": "x" * 24, "plan_id": PLAN} | changed
    with pytest.raises(InvalidInput) as refused:
        adopt(Adoption(**given))
    assert (refused.value.field, refused.value.code) == (field, code)
    assert NUMBER not in str(refused.value)
    assert "xxx" not in repr(Adoption(**given))
    assert not VerificationSession.objects.exists()


def test_an_issue_that_cannot_be(scenario: Scenario, elsewhere: Callable[..., str], clock: Any) -> None:
    token = elsewhere()
    for issued_at, code in (
        (clock() + timedelta(minutes=11), "future"),
        (clock() - timedelta(hours=75, minutes=1), "too_old"),
        (clock().replace(tzinfo=None), "naive"),
    ):
        with pytest.raises(InvalidInput) as refused:
            adopt(Adoption(token, PLAN, issued_at=issued_at))
        assert (refused.value.field, refused.value.code) == ("issued_at", code)
    assert adopt(Adoption(token, PLAN, issued_at=clock() - timedelta(hours=74, minutes=59))).is_new


def test_a_plan_of_an_unknown_application(scenario: Scenario, elsewhere: Callable[..., str]) -> None:
    plan = scenario.plans[PLAN]
    plan.application = "gone"
    plan.save()
    with pytest.raises(FaceprintConfigurationError):
        adopt(Adoption(elsewhere(), PLAN))
