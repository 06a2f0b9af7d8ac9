"""``manage.py faceprint_groups``: create groups with the least permissions for each task."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.core.management.base import BaseCommand, CommandError
from django.db import transaction
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

_SUPPORT = frozenset({"view_verificationsession", "refresh_session"})
_REVIEW = _SUPPORT | {"view_media", "reveal_identity"}

#: Name and permissions. Records are seen with ``view_verificationsession`` only, and masked.
GROUPS: tuple[tuple[Promise, frozenset[str]], ...] = (
    (gettext_lazy("Faceprint support"), _SUPPORT),
    (gettext_lazy("Faceprint review"), _REVIEW),
    (
        gettext_lazy("Faceprint compliance"),
        frozenset(
            {
                *("view_verificationsession", "view_media", "download_media", "reveal_identity"),
                *("view_accesslog", "view_alert", "view_upstreamcall", "view_plan"),
                *("erase_person", "export_masked"),
            }
        ),
    ),
    (
        gettext_lazy("Faceprint administration"),
        frozenset({"manage_plans", "manage_alerts", "view_alert", "view_upstreamcall"}),
    ),
)


class Command(BaseCommand):
    """May be repeated: finds a group by its name in any language and sets exactly these permissions."""

    help = "Make or update the groups for support, review, compliance and administration."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("--language", help="language of the groups' names; LANGUAGE_CODE by default")

    @transaction.atomic
    def handle(self, *args: Any, **options: Any) -> None:
        """Create the groups and print their permissions."""
        language = options["language"] or settings.LANGUAGE_CODE
        if not translation.check_for_language(translation.to_locale(language).replace("_", "-")):
            raise CommandError(_("There is no language %s.") % language)
        found = {
            permission.codename: permission
            for permission in Permission.objects.filter(content_type__app_label="faceprint")
        }
        for name, codenames in GROUPS:
            if missing := codenames - set(found):
                raise CommandError(_("Run migrate first: %s is missing.") % ", ".join(sorted(missing)))
            group = self._group(name, language)
            # Permissions of other apps that an administrator has added stay.
            ours = group.permissions.filter(content_type__app_label="faceprint")
            group.permissions.remove(*ours.exclude(codename__in=codenames))
            group.permissions.add(*(found[codename] for codename in codenames))
            with translation.override(language):
                what = ", ".join(str(_(found[codename].name)) for codename in sorted(codenames))
            self.stdout.write(f"{group.name}: {what}")

    @staticmethod
    def _group(name: Promise, language: str) -> Group:
        names = []
        for known in (language, "en", "zh-hans"):
            with translation.override(known):
                names.append(str(name))
        group = Group.objects.filter(name__in=names).order_by("pk").first()
        return group or Group.objects.create(name=names[0])
