"""Starting a verification."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import astuple, dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import deadlines
from django_faceprint.client import Identity, MatchImage, checked_plan_id
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.exceptions import FaceprintConfigurationError, InvalidInput
from django_faceprint.hosts import refuse_unsafe_hosts
from django_faceprint.models import Plan, VerificationSession
from django_faceprint.privacy.blind_index import fingerprint, has_fingerprint
from django_faceprint.upstream import clients

from . import consent
from .consent import Consent
from .identity import check_identity, submit_identity
from .match_image import upload_match_image
from .returning import check_return_url
from .texts import check_text
from .verify_token import ensure_token

START_REQUEST = "start_request"
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,80}")


@dataclass(frozen=True)
class StartRequest:
    """The arguments of :func:`start_session`.

    ``plan_id`` is the ID of an active plan. ``reference`` (the host's own number) and ``purpose`` are stored
    in plaintext: up to 100 characters, no personal data. ``identity`` and ``match_image`` may follow later
    (``submit_identity``, ``upload_match_image``). ``return_url`` is where the person goes in the end; its
    host must be in ``RETURN_URL_HOSTS``. A repeated call with the same ``idempotency_key`` (1 to 80
    visible ASCII characters) continues the same session.
    """

    plan_id: str
    reference: str = ""
    purpose: str = ""
    identity: Identity | None = None
    match_image: MatchImage | None = None
    return_url: str = ""
    consent: Consent | None = None
    idempotency_key: str | None = None


@sensitive_variables()
def start_session(
    request: StartRequest, *, created_by: Any = None, subject: Any = None
) -> VerificationSession:
    """Create a session, obtain its verify_token, submit the identity and upload the match image if given.

    ``created_by`` is the user who starts it, ``subject`` the user whom it is about; either may be None.
    Call it outside of transactions: it waits for Baidu.

    Raises :class:`InvalidInput` with the name of the field before anything is sent, and
    :class:`FaceprintConfigurationError` for a plan whose application the settings do not have. Once the row
    exists, an upstream error is written on it and raised. Continue that session by calling again with the
    same idempotency key, or with ``submit_identity`` and ``upload_match_image``.
    """
    session = register_session(request, created_by=created_by, subject=subject)
    prepare_session(session, request)
    return session


@sensitive_variables()
def register_session(
    request: StartRequest, *, created_by: Any = None, subject: Any = None
) -> VerificationSession:
    """The first half of :func:`start_session`: check the request and write the row; nothing is sent yet.

    A repeated call with the same idempotency key returns the row of the first one, even if plan or settings
    have changed since. Raises :class:`InvalidInput` (``reused`` for a key that came with another request) and
    :class:`FaceprintConfigurationError`.
    """
    refuse_unsafe_hosts()
    clients.refuse_inside_transaction()
    if request.idempotency_key is not None and not _IDEMPOTENCY_KEY.fullmatch(request.idempotency_key):
        raise InvalidInput("idempotency_key", "idempotency_key")
    found = _find(request, created_by)
    if found is not None:
        return found
    plan = _checked_plan(request)
    _check_texts(request)
    return _find_or_create(request, plan, created_by=created_by, subject=subject)


@sensitive_variables()
def prepare_session(session: VerificationSession, request: StartRequest) -> None:
    """The second half: obtain the verify_token and send what *request* holds, unless done. May be repeated.

    Raises the upstream error after writing it on the session, and :class:`InvalidInput` when something is
    missing and the session is over.
    """
    if session.token_answered_at is None:
        ensure_token(session)
    if request.identity is not None and session.identity_accepted_at is None:
        submit_identity(session, request.identity)
    if request.match_image is not None and session.match_image_accepted_at is None:
        upload_match_image(session, request.match_image)


def _find_or_create(
    request: StartRequest, plan: Plan, *, created_by: Any, subject: Any
) -> VerificationSession:
    try:
        with transaction.atomic():
            session = _create(request, plan, created_by=created_by, subject=subject)
            if request.consent is not None:
                consent.record(session, request.consent)
            return session
    except IntegrityError:
        # Another call with the same key was quicker.
        found = _find(request, created_by)
        if found is None:
            raise
        return found


def _create(request: StartRequest, plan: Plan, *, created_by: Any, subject: Any) -> VerificationSession:
    moment = now()
    return VerificationSession.objects.create(
        environment=conf.environment,
        plan=plan,
        application=plan.application,
        created_by=created_by,
        subject=subject,
        idempotency_key=_stored_key(request, created_by),
        request_digest=fingerprint(START_REQUEST, _content(request)) if request.idempotency_key else "",
        reference=request.reference,
        purpose=request.purpose,
        return_url=request.return_url or None,
        threshold=plan.applied_threshold,
        created_at=moment,
        # If the start fails for good, the engine closes the session when it can no longer be used.
        wake_at=moment + deadlines.TOKEN_LIFE,
    )


def _find(request: StartRequest, created_by: Any) -> VerificationSession | None:
    if request.idempotency_key is None:
        return None
    found = (
        VerificationSession.objects.select_related("plan")
        .filter(idempotency_key=_stored_key(request, created_by))
        .first()
    )
    if found is not None and not has_fingerprint(START_REQUEST, _content(request), found.request_digest):
        raise InvalidInput(
            "idempotency_key", "reused", "This Idempotency-Key was used with another request before."
        )
    return found


def _stored_key(request: StartRequest, created_by: Any) -> str | None:
    """The caller's key as it is stored: unique per caller, None being a caller too, on every database.

    A hash: some databases ignore case, and none treats two NULLs as equal in a unique constraint.
    """
    if request.idempotency_key is None:
        return None
    caller = "" if created_by is None else str(created_by.pk)
    return hashlib.sha256(f"{caller}\n{request.idempotency_key}".encode()).hexdigest()


def _content(request: StartRequest) -> bytes:
    """The request as bytes for its fingerprint, which tells a repeated call from a different one."""
    identity, image = request.identity, request.match_image
    content = [
        request.plan_id,
        request.reference,
        request.purpose,
        request.return_url,
        [identity.name, identity.number, identity.certificate_type] if identity else None,
        [hashlib.sha256(image.data).hexdigest(), image.quality_control, image.liveness_control]
        if image
        else None,
        astuple(request.consent) if request.consent else None,
    ]
    return json.dumps(content, sort_keys=True, default=str).encode()


def _checked_plan(request: StartRequest) -> Plan:
    plan_id = checked_plan_id(request.plan_id)
    plan = Plan.objects.active().filter(plan_id=plan_id).first()
    if plan is None:
        raise InvalidInput("plan", "unknown_plan", "There is no active plan with this ID.")
    if request.identity is not None:
        check_identity(plan, request.identity)
    if request.match_image is not None and not plan.needs_match_image:
        raise InvalidInput("match_image", "not_wanted_by_plan", "This plan takes no match image.")
    check_application(plan)
    return plan


def check_application(plan: Plan) -> None:
    """Raise :class:`FaceprintConfigurationError` for a plan whose credentials the settings do not have."""
    if plan.application not in conf.applications:
        raise FaceprintConfigurationError(
            f'Plan {plan.plan_id} belongs to an application that FACEPRINT["APPLICATIONS"] does not have.'
        )


def _check_texts(request: StartRequest) -> None:
    check_text("reference", request.reference)
    check_text("purpose", request.purpose)
    if request.return_url:
        check_return_url(request.return_url)
    consent.check(request.consent, request.purpose)
    if request.identity is not None:
        given = request.consent.guardian_reference if request.consent else ""
        consent.require_guardian(request.identity.number, request.identity.certificate_type, given)
