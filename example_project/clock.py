"""The movable clock of the demo and the fault tests; in use only with FACEPRINT_CLOCK_FILE and DEBUG."""

from __future__ import annotations

from django.conf import settings

from django_faceprint.clock import FileClock

now = FileClock(settings.FACEPRINT_CLOCK_FILE)
