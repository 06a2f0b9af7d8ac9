"""Sends the signals. A receiver of the host that raises stops nothing."""

from __future__ import annotations

from django.db import transaction

from django_faceprint import signals
from django_faceprint.models import Alert, MediaAsset, VerificationSession


def session_started(session: VerificationSession) -> None:
    """A verify_token was obtained."""
    signals.session_started.send_robust(VerificationSession, session=session)


def session_returned(session: VerificationSession) -> None:
    """The browser came back."""
    signals.session_returned.send_robust(VerificationSession, session=session)


def verdict_reached(session: VerificationSession) -> None:
    """The verdict is known; nothing is sent for *unknown*."""
    by_verdict = {
        VerificationSession.Verdict.PASSED: signals.verification_passed,
        VerificationSession.Verdict.FAILED: signals.verification_failed,
        VerificationSession.Verdict.EXPIRED: signals.session_expired,
    }
    signal = by_verdict.get(VerificationSession.Verdict(session.verdict))
    if signal is not None:
        signal.send_robust(VerificationSession, session=session)


def asset_archived(asset: MediaAsset) -> None:
    """A file lies in storage."""
    signals.asset_archived.send_robust(MediaAsset, session=asset.session, asset=asset)


def session_archived(session: VerificationSession) -> None:
    """Nothing is outstanding and nothing was lost."""
    signals.session_archived.send_robust(VerificationSession, session=session)


def evidence_lost(asset: MediaAsset) -> None:
    """An asset's latest deadline passed."""
    signals.evidence_lost.send_robust(MediaAsset, session=asset.session, asset=asset)


def alert_opened(alert: Alert) -> None:
    """An alert opened. Sent after commit."""
    transaction.on_commit(lambda: signals.alert_opened.send_robust(Alert, alert=alert))


def alert_resolved(alert: Alert) -> None:
    """An alert was resolved. Sent after commit."""
    transaction.on_commit(lambda: signals.alert_resolved.send_robust(Alert, alert=alert))
