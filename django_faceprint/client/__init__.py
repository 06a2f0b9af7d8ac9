"""Baidu's H5 face verification over HTTP, in plain Python: usable without Django.

::

    with FaceprintClient(api_key="…", secret_key="…") as client:
        token = client.generate_verify_token("25001").result
        page = client.h5_url(token)
        …
        answer = client.result_detail(token)
"""

from __future__ import annotations

from ..exceptions import ErrorClass, UpstreamError
from .api import Answer, FaceprintClient, VerifyToken
from .auth import AccessToken, AccessTokenAuth, Authentication, Authorization, MemoryTokenStore, TokenStore
from .breaker import Breakers
from .codes import ENDPOINTS, classify, explain
from .download import Download, Downloader, MediaBody
from .inputs import CERTIFICATE_TYPES, MESSAGES, Identity, MatchImage, checked_plan_id
from .pictures import DecodePicture, PictureCache, decode_picture
from .results import (
    AllResult,
    Attempt,
    DetailResult,
    MediaResult,
    OcrResult,
    SimpleResult,
    StatCount,
    StatResult,
)
from .transport import CallRecord

__all__ = [
    "CERTIFICATE_TYPES",
    "ENDPOINTS",
    "MESSAGES",
    "AccessToken",
    "AccessTokenAuth",
    "AllResult",
    "Answer",
    "Attempt",
    "Authentication",
    "Authorization",
    "Breakers",
    "CallRecord",
    "DecodePicture",
    "DetailResult",
    "Download",
    "Downloader",
    "ErrorClass",
    "FaceprintClient",
    "Identity",
    "MatchImage",
    "MediaBody",
    "MediaResult",
    "MemoryTokenStore",
    "OcrResult",
    "PictureCache",
    "SimpleResult",
    "StatCount",
    "StatResult",
    "TokenStore",
    "UpstreamError",
    "VerifyToken",
    "checked_plan_id",
    "classify",
    "decode_picture",
    "explain",
]
