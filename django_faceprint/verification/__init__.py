"""The Python API: start a verification, complete it, withdraw a consent, adopt a verify_token.

Everything that a host needs is imported from here; the modules below may change. It imports models, so it can
be imported once Django has loaded the apps: from views and tasks, not from settings.
"""

from __future__ import annotations

from django_faceprint.client import Identity, MatchImage

from .adoption import Adopted, Adoption, adopt
from .consent import Consent
from .identity import submit_identity
from .match_image import upload_match_image
from .returning import record_return, return_token, session_of_return_token
from .start import StartRequest, prepare_session, register_session, start_session
from .verify_token import ensure_token, h5_url
from .withdrawal import withdraw

__all__ = [
    "Adopted",
    "Adoption",
    "Consent",
    "Identity",
    "MatchImage",
    "StartRequest",
    "adopt",
    "ensure_token",
    "h5_url",
    "prepare_session",
    "record_return",
    "register_session",
    "return_token",
    "session_of_return_token",
    "start_session",
    "submit_identity",
    "upload_match_image",
    "withdraw",
]
