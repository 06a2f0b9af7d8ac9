"""Who may do what with a session. The queryset says what exists for a caller; these say what it may do."""

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
    """The caller started this session itself."""
    return session.created_by_id is not None and session.created_by_id == user.pk


def may_view_media(user: Any, session: VerificationSession) -> bool:
    """Pictures and videos are for the creator, and for those who may see every session and its media."""
    return is_creator(user, session) or (user.has_perm(VIEW_ALL) and user.has_perm(VIEW_MEDIA))


class MayView(BasePermission):
    """The creator, or who holds ``view_all_sessions``."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this session."""
        return is_creator(request.user, obj) or request.user.has_perm(VIEW_ALL)


class MayRefresh(BasePermission):
    """The creator, or who may see all sessions and have Baidu asked again."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may have Baidu asked about this session."""
        return is_creator(request.user, obj) or request.user.has_perm(REFRESH)


class MayReveal(BasePermission):
    """Who holds ``reveal_identity``, the creator too: what a host submits it need not read back."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this session's identity in clear."""
        return bool(request.user.has_perm(REVEAL))


class MayErase(BasePermission):
    """Who holds ``erase_person``, of the sessions that exist for them."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may erase this session."""
        return bool(request.user.has_perm(ERASE))


class MayWithdraw(BasePermission):
    """The creator, to whom the person turns, or who may erase."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may take back the consent to this session."""
        return is_creator(request.user, obj) or request.user.has_perm(ERASE)


class MayAddTo(BasePermission):
    """The creator alone: seeing all sessions does not mean submitting identities for them."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may submit something for this session."""
        return is_creator(request.user, obj)


class MayViewMedia(BasePermission):
    """See :func:`may_view_media`."""

    def has_object_permission(self, request: Request, view: APIView, obj: Any) -> bool:
        """Whether the caller may see this file."""
        session = obj.session if isinstance(obj, MediaAsset) else obj
        return may_view_media(request.user, session)
