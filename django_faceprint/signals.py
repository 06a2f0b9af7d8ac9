"""Signals for host projects, sent after the transaction that caused them has been committed.

``sender`` is the model class of the object. Exceptions of receivers are logged and do not stop the engine. A
signal may be sent twice, and a crash between commit and sending may lose one: treat signals as hints and the
rows as the truth.
"""

from __future__ import annotations

from django.dispatch import Signal

#: Baidu issued a verify_token. Argument: ``session``.
session_started = Signal()
#: The browser came back from Baidu's page; the result is not known yet. Argument: ``session``.
session_returned = Signal()
#: The verdict became *passed*. Argument: ``session``.
verification_passed = Signal()
#: The verdict became *failed*. Argument: ``session``.
verification_failed = Signal()
#: The verify_token expired without an attempt. Argument: ``session``.
session_expired = Signal()
#: A file was checked, encrypted and stored. Arguments: ``session``, ``asset``.
asset_archived = Signal()
#: All evidence is archived; nothing was lost. Argument: ``session``.
session_archived = Signal()
#: The latest deadline of an asset passed before it was archived. Arguments: ``session``, ``asset``.
evidence_lost = Signal()
#: An alert was opened. Argument: ``alert``.
alert_opened = Signal()
#: An alert was resolved. Argument: ``alert``.
alert_resolved = Signal()
