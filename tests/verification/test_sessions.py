"""Starting a verification: what is refused, what survives a failure, and who gets the H5 URL."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import transaction
from urllib3.connection import HTTPConnection

from django_faceprint import signals
from django_faceprint.client import Identity, MatchImage
from django_faceprint.evidence.files import open_stored
from django_faceprint.exceptions import (
    AuthenticationFailed,
    FaceprintConfigurationError,
    InvalidInput,
    Rejected,
    Unreachable,
)
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.verification import (
    Consent,
    StartRequest,
    h5_url,
    record_return,
    return_token,
    session_of_return_token,
    start_session,
    submit_identity,
    upload_match_image,
)
from django_faceprint.verification.consent import of_session
from django_faceprint.verification.texts import looks_personal
from tests.factories import NUMBER, image_bytes
from tests.scenario import Scenario


def request(plan_id: str = "25001", **values: Any) -> StartRequest:
    values.setdefault("identity", Identity.checked("张三", NUMBER, 0))
    return StartRequest(plan_id=plan_id, **values)


def test_a_started_session_knows_its_deadlines(scenario: Scenario, clock: Any) -> None:
    session = scenario.start()
    assert session.status == "awaiting_user"
    assert session.environment == "sandbox"
    assert session.expires_at == clock() + timedelta(hours=2)
    assert session.media_deadline == clock() + timedelta(hours=24)
    assert session.results_deadline == clock() + timedelta(hours=72)
    assert session.media_give_up_at == clock() + timedelta(hours=27)
    assert session.results_give_up_at == clock() + timedelta(hours=75)
    assert session.wake_at == clock() + timedelta(seconds=30)


def test_the_h5_url_waits_for_all_that_the_plan_requires(scenario: Scenario) -> None:
    session = start_session(StartRequest(plan_id="25001"))
    assert (h5_url(session), session.status) == (None, "created")
    submit_identity(session, Identity.checked("张三", NUMBER, 0))
    url = h5_url(session)
    assert url is not None
    assert session.verify_token in url

    compared = start_session(StartRequest(plan_id="25004"))
    assert h5_url(compared) is None
    upload_match_image(compared, MatchImage.checked(image_bytes()))
    assert h5_url(compared) is not None


def test_an_upstream_error_has_no_other_error_behind_it(
    scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Errors of HTTP libraries carry URLs with tokens."""
    session = start_session(StartRequest(plan_id="25001"))

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("with a URL in it")

    monkeypatch.setattr(HTTPConnection, "request", refuse)
    with pytest.raises(Unreachable) as caught:
        submit_identity(session, Identity.checked("张三", NUMBER, 0))
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)
    assert scenario.fresh(session).error_class == "retry"


def test_the_h5_url_ends_with_the_token(scenario: Scenario, clock: Any) -> None:
    session = scenario.start()
    clock.advance(hours=2)
    assert h5_url(session) is None


def test_the_match_image_is_archived_even_when_baidu_refuses_it(scenario: Scenario) -> None:
    session = start_session(StartRequest(plan_id="25004"))
    scenario.fault("upload_match_image", "service", code=222202, count=1)
    data = image_bytes()
    with pytest.raises(Rejected):
        upload_match_image(session, MatchImage.checked(data))
    asset = session.assets.get()
    assert (asset.kind, asset.state, asset.deadline) == ("match_image", MediaAsset.State.STORED, None)
    with open_stored(asset) as reader:
        assert reader.read() == data
    assert scenario.fresh(session).match_image_accepted_at is None
    assert h5_url(session) is None


def test_a_start_that_fails_leaves_a_record_and_can_be_repeated(scenario: Scenario, clock: Any) -> None:
    scenario.fault("verify_token_generate", "http_500", count=1)
    again = request(idempotency_key="order-1")
    with pytest.raises(Unreachable):
        start_session(again)
    session = VerificationSession.objects.get()
    assert (session.status, session.error_class, session.token_answered_at) == ("created", "retry", None)
    repeated = start_session(again)
    assert repeated.pk == session.pk
    assert (repeated.status, repeated.error_class) == ("awaiting_user", "")
    assert start_session(again).verify_token == repeated.verify_token
    assert VerificationSession.objects.count() == 1


def test_a_start_that_keeps_failing_expires(scenario: Scenario, clock: Any) -> None:
    scenario.fault("verify_token_generate", "http_500")
    with pytest.raises(Unreachable):
        scenario.start()
    clock.advance(hours=2, seconds=1)
    scenario.work()
    session = VerificationSession.objects.get()
    assert (session.verdict, session.status, session.archive_state) == (
        "expired",
        "expired",
        "not_applicable",
    )
    assert not session.has_outstanding_work


def test_an_idempotency_key_is_bound_to_its_request_and_caller(scenario: Scenario) -> None:
    users = get_user_model().objects
    one, other = users.create_user("one"), users.create_user("other")
    first = start_session(request(idempotency_key="k"), created_by=one)
    with pytest.raises(InvalidInput) as caught:
        start_session(request(idempotency_key="k", reference="another"), created_by=one)
    assert caught.value.code == "reused"
    second = start_session(request(idempotency_key="k"), created_by=other)
    assert second.pk != first.pk


@pytest.mark.parametrize(
    ("values", "field", "code"),
    [
        ({"plan_id": "99999"}, "plan", "unknown_plan"),
        ({"reference": NUMBER}, "reference", "looks_personal"),
        ({"reference": "order 110105 19491231 002X"}, "reference", "looks_personal"),
        ({"reference": "１３８００１３８０００"}, "reference", "looks_personal"),
        ({"reference": "tel:+86-138-0013-8000"}, "reference", "looks_personal"),
        ({"reference": "x" * 101}, "reference", "too_long"),
        ({"reference": "a\nb"}, "reference", "control_characters"),
        ({"purpose": NUMBER}, "purpose", "looks_personal"),
        ({"plan_id": "25005"}, "identity", "not_wanted_by_plan"),
        ({"return_url": "https://evil.example.com/"}, "return_url", "not_allowed"),
        ({"return_url": "https://shop.example.com@evil.example.com/"}, "return_url", "not_allowed"),
        ({"return_url": "https://shop.example.com\\@evil.example.com/"}, "return_url", "not_allowed"),
        ({"return_url": "javascript:alert(1)//shop.example.com"}, "return_url", "not_allowed"),
        ({"return_url": "//shop.example.com/"}, "return_url", "not_allowed"),
        ({"return_url": "https://shop.example.com:8443/"}, "return_url", "not_allowed"),
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(
    scenario: Scenario, values: dict[str, Any], field: str, code: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        start_session(request(**values))
    assert (caught.value.field, caught.value.code) == (field, code)
    assert NUMBER not in str(caught.value)
    assert VerificationSession.objects.count() == 0
    assert scenario.control("GET", "ledger")["sessions"] == []


@pytest.mark.parametrize(
    "reference", ["order-2026-11-24-0001", "SO202611240000123456", "7f3c…", "订单 12345678", "ref 440301"]
)
def test_ordinary_references_are_accepted(reference: str) -> None:
    assert not looks_personal(reference)


def test_only_plans_with_the_option_accept_other_documents(scenario: Scenario) -> None:
    permit = Identity.checked("李四", "810000199408230021", 4)
    with pytest.raises(InvalidInput) as caught:
        start_session(request(identity=permit))
    assert caught.value.field == "identity.certificate_type"
    assert start_session(request("25006", identity=permit)).status == "awaiting_user"


def test_consent_may_be_given_without_being_required(scenario: Scenario) -> None:
    session = start_session(request(consent=Consent("c-1", "3")))
    found = of_session(session)
    assert found is not None
    assert (found.reference, found.notice_version) == ("c-1", "3")
    assert of_session(start_session(request())) is None


def test_the_sandbox_never_passes_people_in_production(scenario: Scenario, settings: Any) -> None:
    settings.DEBUG = False
    with pytest.raises(FaceprintConfigurationError):
        start_session(request())
    assert VerificationSession.objects.count() == 0


def test_nothing_is_sent_inside_a_transaction(scenario: Scenario) -> None:
    with pytest.raises(RuntimeError, match="transaction"), transaction.atomic():
        start_session(request())


def test_a_wrong_key_is_named(scenario: Scenario, settings: Any) -> None:
    settings.FACEPRINT = {
        **settings.FACEPRINT,
        "APPLICATIONS": {"default": {"API_KEY": "wrong", "SECRET_KEY": "sandbox-secret-key"}},
    }
    with pytest.raises(AuthenticationFailed):
        start_session(request())
    session = VerificationSession.objects.get()
    assert session.error_class == "configuration"
    assert "API" in session.error_message


def test_only_the_first_return_counts_and_a_forged_link_finds_nothing(scenario: Scenario, clock: Any) -> None:
    returned: list[Any] = []
    signals.session_returned.connect(lambda **what: returned.append(what), weak=False, dispatch_uid="t")
    try:
        session = scenario.start()
        token = return_token(session)
        found = session_of_return_token(token)
        assert found is not None
        record_return(found)
        first = scenario.fresh(session).returned_at
        clock.advance(minutes=1)
        record_return(found)
    finally:
        signals.session_returned.disconnect(dispatch_uid="t")
    assert scenario.fresh(session).returned_at == first
    assert len(returned) == 1
    assert session_of_return_token(token[:-1] + ("A" if token[-1] != "A" else "B")) is None
    assert session_of_return_token(str(session.public_id)) is None
    assert session.public_id.hex not in token.split(":")[1:]


def test_a_closed_session_accepts_no_input(scenario: Scenario, clock: Any) -> None:
    session = scenario.start()
    clock.advance(hours=3, seconds=1)
    scenario.work()
    with pytest.raises(InvalidInput) as caught:
        submit_identity(scenario.fresh(session), Identity.checked("张三", NUMBER, 0))
    assert caught.value.code == "closed"
