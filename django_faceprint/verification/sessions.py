"""Starting a verification and getting the person to the H5 page (API reference 3.1 to 3.3, 5)."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import astuple, dataclass
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from django.core import signing
from django.db import IntegrityError, transaction
from django.db.models import F
from django.urls import NoReverseMatch, reverse
from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import deadlines, events, lease
from django_faceprint.client import FaceprintClient, Identity, MatchImage, checked_plan_id
from django_faceprint.clock import now
from django_faceprint.conf import conf
from django_faceprint.engine import polling, queue
from django_faceprint.evidence import files
from django_faceprint.exceptions import (
    FaceprintConfigurationError,
    FaceprintError,
    InvalidInput,
    Rejected,
)
from django_faceprint.hosts import refuse_unsafe_hosts
from django_faceprint.models import MediaAsset, Plan, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet
from django_faceprint.privacy.blind_index import blind_index, fingerprint, has_fingerprint
from django_faceprint.privacy.fields import column_values, seal_value
from django_faceprint.upstream import clients
from django_faceprint.upstream.errors import NO_ERROR, error_columns

from . import consent
from .consent import Consent
from .texts import check_text

RETURN_SALT = "faceprint.return"
START_REQUEST = "start_request"
#: Pictures that one session keeps, refused ones included.
MAX_MATCH_IMAGES = 20
_IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,80}")


@dataclass(frozen=True)
class StartRequest:
    """What a host asks for when it starts a verification.

    ``identity`` and ``match_image`` may come now or later (:func:`submit_identity`,
    :func:`upload_match_image`). ``idempotency_key`` makes a repeated call return the same session.
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
    """Create a session, obtain its verify_token and submit what was given with it.

    Raises :class:`InvalidInput` naming the field before anything is sent. Once the row exists, an
    upstream failure is written on it and raised: the session can be continued by calling again with
    the same idempotency key (1 to 80 visible ASCII characters), or with :func:`submit_identity` and
    :func:`upload_match_image`.
    """
    session = register_session(request, created_by=created_by, subject=subject)
    prepare_session(session, request)
    return session


@sensitive_variables()
def register_session(
    request: StartRequest, *, created_by: Any = None, subject: Any = None
) -> VerificationSession:
    """The first half of :func:`start_session`: check, and write the row; nothing is sent yet.

    A repeated call, by its idempotency key, finds the row that it made before, whatever has become of
    the plan and the settings since. Raises :class:`InvalidInput`, with code ``reused`` for a key that
    came with another request, and :class:`FaceprintConfigurationError`.
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
    """The second half: obtain and submit what is still missing of *request*. May be repeated.

    Raises the upstream error, written on the session, and :class:`InvalidInput` when something is
    missing and it is too late for it.
    """
    if session.token_answered_at is None:
        continue_session(session)
    if request.identity is not None and session.identity_accepted_at is None:
        submit_identity(session, request.identity)
    if request.match_image is not None and session.match_image_accepted_at is None:
        upload_match_image(session, request.match_image)


@sensitive_variables()
def submit_identity(session: VerificationSession, identity: Identity) -> None:
    """Submit name and number for *session*, before the person opens the page.

    A verify_token that could not be obtained before is obtained first. The identity that was accepted
    already may be submitted again, to no effect. Raises :class:`InvalidInput` when the plan takes none,
    another one was accepted, the window is over or the verdict is known, and the upstream error,
    written on the session, when Baidu refuses.
    """
    _check_open(session)
    _check_identity(session.plan, identity)
    given = consent.of_session(session)
    guardian = given.guardian_reference if given is not None else None
    consent.require_guardian(identity.number, identity.certificate_type, guardian)
    if session.identity_accepted_at is not None:
        # The person may be on the page already: who is to appear there must not change under a session.
        known = (session.identity_name, session.identity_number, session.certificate_type)
        if known != (identity.name, identity.number, identity.certificate_type):
            raise _already_accepted("identity")
        return
    continue_session(session)
    token = _require_token(session)
    # Another call may have been quicker: what was accepted is never overwritten, whatever we loaded.
    unaccepted = VerificationSession.objects.filter(identity_accepted_at__isnull=True)
    if not _update_among(unaccepted, session, identity_columns(identity)):
        session.refresh_from_db()
        submit_identity(session, identity)
        return
    with _noting_problems(session), _client_of(session) as client:
        client.submit_identity(token, identity)
    _update(session, identity_accepted_at=now(), **NO_ERROR)


@sensitive_variables()
def upload_match_image(session: VerificationSession, image: MatchImage) -> None:
    """Upload the picture that the person's face is compared with, before the person opens the page.

    The picture is archived first: evidence of what the face was compared with, also when Baidu refuses it.
    Raises as :func:`submit_identity` does, and ``StorageFailed`` when it could not be kept.
    """
    _check_open(session)
    if not session.plan.needs_match_image:
        raise InvalidInput("match_image", "not_wanted_by_plan", "This plan takes no match image.")
    if session.match_image_accepted_at is not None:
        if not _is_last_match_image(session, image):
            raise _already_accepted("match_image")
        return
    continue_session(session)
    token = _require_token(session)
    if not _is_last_match_image(session, image):
        _keep_match_image(session, image)
    with _noting_problems(session), _client_of(session) as client:
        client.upload_match_image(token, image)
    _update(session, match_image_accepted_at=now(), **NO_ERROR)


@sensitive_variables()
def continue_session(session: VerificationSession) -> None:
    """Obtain the verify_token of a session whose start failed.

    Raises :class:`InvalidInput` when the session is over, and the upstream error, written on it.
    """
    _check_open(session)
    if session.token_answered_at is None:
        _obtain_token(session)


@sensitive_variables()
def h5_url(session: VerificationSession) -> str | None:
    """Where to send the person; None until all that the plan requires was accepted, and after the end.

    The URL carries the verify_token: show it to that person only and never log it.
    """
    if not session.is_prepared or session.verdict != VerificationSession.Verdict.PENDING:
        return None
    if session.expires_at is None or now() >= session.expires_at:
        return None
    with _client_of(session) as client:
        return client.h5_url(_require_token(session))


def record_return(session: VerificationSession) -> None:
    """The browser came back from the H5 page: a hint that the result may be there, and no more."""
    first = VerificationSession.objects.filter(pk=session.pk, returned_at__isnull=True).update(
        returned_at=now()
    )
    session.refresh_from_db(fields=["returned_at", "verdict"])
    queue.request_recheck(session.pk)
    if first:
        events.session_returned(session)


def return_token(session: VerificationSession) -> str:
    """A signed name of the session for its return URL, so that sessions cannot be probed by id."""
    return signing.Signer(salt=RETURN_SALT).sign(session.public_id.hex)


def session_of_return_token(token: str) -> VerificationSession | None:
    """The session that *token* was made for, or None when it was not made here."""
    try:
        public_id = UUID(signing.Signer(salt=RETURN_SALT).unsign(token))
    except (signing.BadSignature, ValueError):
        return None
    return VerificationSession.objects.select_related("plan").filter(public_id=public_id).first()


# --- steps --------------------------------------------------------------------------------------


def _obtain_token(session: VerificationSession) -> None:
    consent.require(session)
    back = _return_url(session)
    requested_at = now()
    with _noting_problems(session), _client_of(session) as client:
        answer = client.generate_verify_token(session.plan.plan_id, success_url=back, failed_url=back)
        if answer.result is None:
            raise Rejected("verifyToken/generate answered no token.", error=answer.error)
    answered_at = now()
    dates = deadlines.session_deadlines(requested_at, answered_at)
    token = str(answer.result)
    values = {
        "verify_token": seal_value(session, "verify_token", token),
        "verify_token_index": blind_index("verify_token", token),
        "token_requested_at": requested_at,
        "token_answered_at": answered_at,
        **dates.columns(),
        **deadlines.undecided_deadlines(
            requested_at=requested_at,
            media_deadline=dates.media_deadline,
            results_deadline=dates.results_deadline,
            records_video=session.plan.records_video,
            moment=answered_at,
        ).columns(),
        "wake_at": polling.first_poll_at(answered_at),
        "priority_at": None,
        # A worker that holds the session still takes it for one without a token: end its lease.
        "lease_epoch": F("lease_epoch") + 1,
        "lease_until": None,
        "recheck_requested": False,
        **NO_ERROR,
    }
    # Two callers with one idempotency key may both get here; the second token is simply never used.
    won = VerificationSession.objects.filter(
        pk=session.pk, token_answered_at__isnull=True, verdict=VerificationSession.Verdict.PENDING
    ).update(**values)
    session.refresh_from_db()
    if won:
        events.session_started(session)


def _is_last_match_image(session: VerificationSession, image: MatchImage) -> bool:
    kept = session.assets.filter(kind=MediaAsset.Kind.MATCH_IMAGE).exclude(sha256="")
    last = kept.order_by("position").last()
    return last is not None and last.sha256 == hashlib.sha256(image.data).hexdigest()


def _keep_match_image(session: VerificationSession, image: MatchImage) -> None:
    asset = _new_match_image(session)
    if not session.plan.keeps(asset.kind):
        # Sent to Baidu all the same; its hash tells a repeated upload from another picture.
        MediaAsset.objects.filter(pk=asset.pk).update(
            state=MediaAsset.State.NOT_PROVIDED,
            reason=MediaAsset.NOT_KEPT,
            sha256=hashlib.sha256(image.data).hexdigest(),
            size=len(image.data),
        )
        return
    try:
        files.store(_current_lease(session), asset, [image.data])
    except (files.StorageFailed, FaceprintError, lease.LeaseLost):
        asset.delete()
        raise


def _new_match_image(session: VerificationSession) -> MediaAsset:
    """The next free place; two uploads at the same time get two."""
    kept = session.assets.filter(kind=MediaAsset.Kind.MATCH_IMAGE).count()
    for position in range(kept, MAX_MATCH_IMAGES):
        asset, created = MediaAsset.objects.get_or_create(
            session=session,
            attempt_order=0,
            kind=MediaAsset.Kind.MATCH_IMAGE,
            position=position,
            defaults={"source": MediaAsset.Source.UPLOAD},
        )
        if created:
            return asset
    raise InvalidInput(
        "match_image",
        "too_many",
        f"At most {MAX_MATCH_IMAGES} match images per session.",
        {"limit": MAX_MATCH_IMAGES},
    )


def _current_lease(session: VerificationSession) -> lease.Lease:
    """Write under the row's present epoch, as nothing else of the session's work is touched."""
    epoch = VerificationSession.objects.values_list("lease_epoch", flat=True).get(pk=session.pk)
    return lease.Lease(session.pk, epoch)


def _client_of(session: VerificationSession) -> AbstractContextManager[FaceprintClient]:
    return clients.upstream.client_for(session.application, session=session)


@contextmanager
def _noting_problems(session: VerificationSession) -> Iterator[None]:
    """Write an upstream failure on the session before it goes on to the caller."""
    try:
        yield
    except InvalidInput:
        raise
    except (FaceprintError, FaceprintConfigurationError) as problem:
        _update(session, **error_columns(problem))
        raise


def _update(session: VerificationSession, **values: Any) -> None:
    _update_among(VerificationSession.objects.all(), session, values)


def _update_among(
    rows: VerificationSessionQuerySet, session: VerificationSession, values: Mapping[str, Any]
) -> bool:
    """Change the session's row, if it is among *rows*, and the instance with it; whether it is."""
    if not rows.filter(pk=session.pk).update(**column_values(session, values)):
        return False
    for name, value in values.items():
        setattr(session, name, value)
    return True


def _require_token(session: VerificationSession) -> str:
    token = session.verify_token
    if not token:
        raise InvalidInput("session", "no_token", "This session has no verify_token yet.")
    return token


def _return_url(session: VerificationSession) -> str | None:
    if not conf.public_url:
        return None
    try:
        path = reverse("faceprint:return", args=[return_token(session)])
    except NoReverseMatch:
        # The host has not included django_faceprint.urls: results are then seen by polling alone.
        return None
    return conf.public_url + path


# --- checks -------------------------------------------------------------------------------------


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
        # Should the start fail for good, the engine closes the session when nobody can use it any more.
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
    """The caller's key as it is stored: unique among all callers, nobody included, on every database.

    A hash, because some databases compare texts without regard to case and none takes two NULLs for equal.
    """
    if request.idempotency_key is None:
        return None
    caller = "" if created_by is None else str(created_by.pk)
    return hashlib.sha256(f"{caller}\n{request.idempotency_key}".encode()).hexdigest()


def _content(request: StartRequest) -> bytes:
    """All that was asked for, to tell a repeated call from another one by its fingerprint."""
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
        _check_identity(plan, request.identity)
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


def identity_columns(identity: Identity) -> dict[str, Any]:
    """The columns of a session that hold, in clear, whom it is to verify; and the indexes to find them by."""
    return {
        "identity_name": identity.name,
        "identity_number": identity.number,
        "certificate_type": identity.certificate_type,
        "name_index": blind_index("name", identity.name),
        "number_index": blind_index("id_number", identity.number),
    }


def _check_identity(plan: Plan, identity: Identity) -> None:
    if not plan.needs_identity:
        raise InvalidInput("identity", "not_wanted_by_plan", "This plan takes no identity from the server.")
    if identity.certificate_type != 0 and not plan.accepts_non_mainland:
        raise InvalidInput(
            "identity.certificate_type", "mainland_only", "This plan accepts certificate type 0 only."
        )


def _check_texts(request: StartRequest) -> None:
    check_text("reference", request.reference)
    check_text("purpose", request.purpose)
    if request.return_url:
        _check_return_url(request.return_url)
    consent.check(request.consent, request.purpose)
    if request.identity is not None:
        given = request.consent.guardian_reference if request.consent else ""
        consent.require_guardian(request.identity.number, request.identity.certificate_type, given)


def _check_return_url(url: str) -> None:
    refused = InvalidInput(
        "return_url", "not_allowed", 'Not a URL of a host in FACEPRINT["RETURN_URL_HOSTS"].'
    )
    if len(url) > 2000 or "\\" in url or any(ord(character) <= 32 for character in url):
        raise refused
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts = None
        port = None
    if parts is None or parts.hostname is None or parts.username is not None:
        raise refused
    if parts.scheme != "https" and not (conf.debug and parts.scheme == "http"):
        raise refused
    host = parts.hostname.lower()
    default_port = 443 if parts.scheme == "https" else 80
    named = host if port in (None, default_port) else f"{host}:{port}"
    allowed = {item.lower() for item in conf.return_url_hosts}
    if named not in allowed and f"{host}:{port or default_port}" not in allowed:
        raise refused


def refuse_erased(session: VerificationSession) -> None:
    """Raise :class:`InvalidInput` for a session whose evidence was erased."""
    if session.erased_at is not None:
        raise InvalidInput("session", "erased", "The evidence of this session was erased.")


def _already_accepted(field: str) -> InvalidInput:
    return InvalidInput(
        field, "already_accepted", "Another one was accepted for this session; start a new session."
    )


def _check_open(session: VerificationSession) -> None:
    refuse_erased(session)
    if session.verdict != VerificationSession.Verdict.PENDING:
        raise InvalidInput("session", "closed", "This session is closed.")
    if session.expires_at is not None and now() >= session.expires_at:
        raise InvalidInput("session", "expired", "This session's verify_token has expired.")
