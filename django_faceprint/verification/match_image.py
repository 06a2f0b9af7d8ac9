"""Uploading the match image (API reference 3.3)."""

from __future__ import annotations

import hashlib

from django.views.decorators.debug import sensitive_variables

from django_faceprint.base import lease
from django_faceprint.client import MatchImage
from django_faceprint.clock import now
from django_faceprint.evidence import files
from django_faceprint.exceptions import FaceprintError, InvalidInput
from django_faceprint.models import MediaAsset, VerificationSession
from django_faceprint.upstream.errors import NO_ERROR

from .state import already_accepted, check_open, client_of, update
from .verify_token import obtained_token

#: Maximum number of pictures that one session keeps, refused ones included.
MAX_MATCH_IMAGES = 20


@sensitive_variables()
def upload_match_image(session: VerificationSession, image: MatchImage) -> None:
    """Upload the picture that the person's face is compared with, before the person opens the page.

    The picture is archived first: evidence of what the face was compared with, also when Baidu refuses it.
    Raises as ``submit_identity`` does, and ``StorageFailed`` when it could not be archived.
    """
    check_open(session)
    if not session.plan.needs_match_image:
        raise InvalidInput("match_image", "not_wanted_by_plan", "This plan takes no match image.")
    if session.match_image_accepted_at is not None:
        if not _is_last_match_image(session, image):
            raise already_accepted("match_image")
        return
    token = obtained_token(session)
    if not _is_last_match_image(session, image):
        _keep_match_image(session, image)
    with client_of(session) as client:
        client.upload_match_image(token, image)
    update(session, match_image_accepted_at=now(), **NO_ERROR)


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
        files.write_and_commit(_current_lease(session), asset, [image.data])
    except (files.StorageFailed, FaceprintError, lease.LeaseLost):
        asset.delete()
        raise


def _new_match_image(session: VerificationSession) -> MediaAsset:
    """A row at the next free position; two uploads at the same time get two rows."""
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
    """A lease under the row's present epoch: an upload changes nothing that a worker writes."""
    epoch = VerificationSession.objects.values_list("lease_epoch", flat=True).get(pk=session.pk)
    return lease.Lease(session.pk, epoch)
