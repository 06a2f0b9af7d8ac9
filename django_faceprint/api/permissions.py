"""Permissions on sessions. Querysets decide which sessions a caller sees, these classes what it may do."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.views import APIView

from django_faceprint.models import MediaAsset, VerificationSession

VIEW_ALL = "faceprint.view_all_sessions"
VIEW_MEDIA = "faceprint.view_media"
REVEAL = "faceprint.reveal_identity"
ERASE = "faceprint.erase_person"
REFRESH = "faceprint.refresh_session"


def is_creator(user: Any, session: VerificationSession) -> bool:
    """Whether *user* started this session."""
    return session.created_by_id is not None and session.created_by_id == user.pk


def may_view_media(user: Any, session: VerificationSession) -> bool:
    """Whether *user* is the creator, or has both ``view_all_sessions`` and ``view_media``."""
    return is_creator(user, session) or (user.has_perm(VIEW_ALL) and user.has_perm(VIEW_MEDIA))


class MayView(BasePermission):
    """The creator, and users with ``view_all_sessions``."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this session."""
        return is_creator(request.user, obj) or request.user.has_perm(VIEW_ALL)


class MayRefresh(BasePermission):
    """The creator, and users with ``refresh_session``."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may request a refresh of this session."""
        return is_creator(request.user, obj) or request.user.has_perm(REFRESH)


class MayReveal(BasePermission):
    """Users with ``reveal_identity``. The creator needs it too: hosts need not read back what they submit."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this session's unmasked identity."""
        return bool(request.user.has_perm(REVEAL))


class MayErase(BasePermission):
    """Users with ``erase_person``, for sessions that they can see."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may erase this session."""
        return bool(request.user.has_perm(ERASE))


class MayWithdraw(BasePermission):
    """The creator, and users with ``erase_person``."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may withdraw the consent to this session."""
        return is_creator(request.user, obj) or request.user.has_perm(ERASE)


class MayAddTo(BasePermission):
    """The creator only: users who see all sessions must not submit identities for them."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may submit an identity or match image for this session."""
        return is_creator(request.user, obj)


class MayViewMedia(BasePermission):
    """See :func:`may_view_media`."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this file."""
        session = obj.session if isinstance(obj, MediaAsset) else obj
        return may_view_media(request.user, session)
