"""The tables, and questions about single rows. The rooms above write them."""

from . import lookups as lookups  # registers them
from .access import AccessLog, AccessReason, AccessSeal
from .alert import Alert, AlertRule
from .answer import UpstreamAnswer
from .asset import MediaAsset, UploadIntent
from .attempt import VerificationAttempt
from .call import AccessToken, Heartbeat, RateLimitBucket, UpstreamCall
from .consent import ConsentRecord
from .erasure import Erasure
from .job import Job, JobPart
from .plan import Plan
from .rollup import Dashboard, Rollup, RollupHour, StorageBlock
from .session import VerificationSession

__all__ = [
    "AccessLog",
    "AccessReason",
    "AccessSeal",
    "AccessToken",
    "Alert",
    "AlertRule",
    "ConsentRecord",
    "Dashboard",
    "Erasure",
    "Heartbeat",
    "Job",
    "JobPart",
    "MediaAsset",
    "Plan",
    "RateLimitBucket",
    "Rollup",
    "RollupHour",
    "StorageBlock",
    "UploadIntent",
    "UpstreamAnswer",
    "UpstreamCall",
    "VerificationAttempt",
    "VerificationSession",
]
