"""A runnable host of django-faceprint, on a laptop by default and in production by environment alone."""

from .celery import app as celery_app

__all__ = ["celery_app"]
