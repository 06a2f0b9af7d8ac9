"""Errors that end a command with a message instead of a traceback."""

from __future__ import annotations

from django.core.management.base import CommandError
from django.db.utils import Error as AnyDatabaseError
from django.utils.translation import gettext as _

from django_faceprint.exceptions import FaceprintConfigurationError, replace_exceptions


def command_errors() -> replace_exceptions:
    """Inside ``with``, errors of configuration and database become :class:`CommandError`."""
    return replace_exceptions(
        FaceprintConfigurationError, AnyDatabaseError, by=lambda error: CommandError(describe(error))
    )


def describe(error: FaceprintConfigurationError | AnyDatabaseError) -> str:
    """A message for operators. Texts of databases quote values, so only the error's type is named."""
    if isinstance(error, FaceprintConfigurationError):
        return str(error)
    return _("The database failed (%s).") % type(error).__name__
