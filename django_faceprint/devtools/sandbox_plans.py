"""Copies the plans of the local sandbox, which has an interface for them; Baidu has none."""

from __future__ import annotations

from typing import Any

import requests

from django_faceprint.conf import conf
from django_faceprint.exceptions import FaceprintConfigurationError, Unreachable, replace_exceptions
from django_faceprint.models import Plan

_MATCH_SOURCES = {
    "authoritative": Plan.MatchSource.AUTHORITY,
    "own_library": Plan.MatchSource.MATCH_IMAGE,
    "liveness_only": Plan.MatchSource.LIVENESS_ONLY,
}
_REAL_TIME = {
    "colourful": Plan.Liveness.COLORFUL,
    "action": Plan.Liveness.ACTION,
    "silent": Plan.Liveness.SILENT,
    "distance": Plan.Liveness.DISTANCE,
}
_RECORDED = {
    "action": Plan.Liveness.RECORDED_ACTION,
    "silent": Plan.Liveness.RECORDED_SILENT,
    "digits": Plan.Liveness.RECORDED_DIGITS,
    "image": Plan.Liveness.IMAGE,
}


def copy_sandbox_plans(*, application: str = "default") -> list[Plan]:
    """Create or update the plans of the sandbox at ``API_URL``; returns them.

    Raises :class:`FaceprintConfigurationError` when ``API_URL`` is Baidu and :class:`Unreachable` when
    no sandbox answers there.
    """
    if conf.environment == "live":
        raise FaceprintConfigurationError("Baidu has no interface for plans; add them in the admin.")
    no_sandbox = Unreachable("No sandbox answers at API_URL.")
    with replace_exceptions(requests.RequestException, ValueError, by=lambda error: no_sandbox):
        reply = requests.get(f"{conf.api_url}/_sandbox/plans", timeout=10, allow_redirects=False)
        answer: Any = reply.json() if reply.ok else None
    if not isinstance(answer, list):
        raise no_sandbox
    return [_copy(options, application) for options in answer]


def _copy(options: dict[str, Any], application: str) -> Plan:
    recorded = not options["realtime"]
    plan, _ = Plan.objects.update_or_create(
        plan_id=options["plan_id"],
        defaults={
            "name": options["name"][:100],
            "application": application,
            "match_source": _MATCH_SOURCES[options["match_source"]],
            "identity_entry": options["identity_entry"],
            "card_sides": "both" if options["ocr_sides"] == "both" else "front",
            "accepts_non_mainland": options["non_mainland"],
            "liveness": (_RECORDED if recorded else _REAL_TIME)[options["liveness"]],
            "records_video": options["recording"],
            "closes_on_failure": options["closes_on_failure"],
            "threshold": options["threshold"],
        },
    )
    return plan
