"""Signals for host projects, sent after the transaction that caused them has been committed.

``sender`` is the model class of the object. A receiver's exception is logged and does not stop the
engine. Each is sent at least once; a crash between commit and sending can swallow one, so treat
them as hints and the rows as the truth.
"""

from __future__ import annotations

from django.dispatch import Signal

#: Emitted when a verify_token has been obtained. Argument: ``session``.
session_started = Signal()
#: Emitted when the browser came back from the H5 page; says nothing of the result. Argument: ``session``.
session_returned = Signal()
#: Emitted when the verdict became *passed*. Argument: ``session``.
verification_passed = Signal()
#: Emitted when the verdict became *failed*. Argument: ``session``.
verification_failed = Signal()
#: Emitted when the window closed without an attempt. Argument: ``session``.
session_expired = Signal()
#: Emitted when a file has been checked, encrypted and stored. Arguments: ``session``, ``asset``.
asset_archived = Signal()
#: Emitted when nothing more is outstanding and nothing was lost. Argument: ``session``.
session_archived = Signal()
#: Emitted when an asset's latest deadline passed without it being stored. Arguments: ``session``, ``asset``.
evidence_lost = Signal()
#: Emitted when an alert opened. Argument: ``alert``.
alert_opened = Signal()
#: Emitted when an alert was resolved. Argument: ``alert``.
alert_resolved = Signal()
