"""``manage.py faceprint_erase``: erase a person, or single records, before their retention ends."""

from __future__ import annotations

import getpass
import json
import sys
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from django_faceprint.audit.access import Actor
from django_faceprint.evidence.erasure import (
    MAX_REASON_LENGTH,
    Preview,
    certificate,
    erase,
    preview,
    sessions_of_person,
)
from django_faceprint.exceptions import InvalidInput, replace_exceptions
from django_faceprint.models import Erasure, VerificationSession
from django_faceprint.models.session import VerificationSessionQuerySet

NOTHING_FOUND, NOT_VERIFIED, NOT_CONFIRMED = 1, 2, 3


class Command(BaseCommand):
    """Exit status 0: erased, including all files; 1: nothing found; 2: faceprint.retain must still delete
    files; 3: not confirmed."""

    help = "Erase all that is kept of a person, found by ID number, or of single records."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument(
            "--session", action="append", metavar="ID", help="erase this record instead; may be repeated"
        )
        parser.add_argument("--reason", default="", help="why, for the erasure's record (stored encrypted)")
        parser.add_argument("--actor", help="who erases (default: the user of this system)")
        parser.add_argument("--dry-run", action="store_true", help="show what would be erased")
        parser.add_argument("--yes", action="store_true", help="do not ask for confirmation")
        parser.add_argument("--certificate", type=Path, metavar="FILE", help="write a certificate as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Find, show, confirm, erase."""
        if not options["dry_run"] and not options["reason"].strip():
            raise CommandError(_("--reason is required."))
        found = self._by_id(options["session"]) if options["session"] else self._by_number()
        before = preview(found)
        if not before.sessions:
            self.stdout.write(_("No record was found."))
            sys.exit(NOTHING_FOUND)
        self._show(found, before)
        if options["dry_run"]:
            return
        if not options["yes"] and not self._confirmed(before.sessions):
            self.stdout.write(_("Nothing was erased."))
            sys.exit(NOT_CONFIRMED)
        actor = Actor(name=options["actor"] or getpass.getuser(), channel="command")
        too_long = CommandError(_("--reason has at most %s characters.") % MAX_REASON_LENGTH)
        with replace_exceptions(InvalidInput, by=lambda error: too_long):
            erasure = erase(found, reason=options["reason"], actor=actor)
        self._finish(erasure, options["certificate"])

    def _by_id(self, texts: list[str]) -> VerificationSessionQuerySet:
        ids = [found for text in texts if (found := VerificationSession.parse_public_id(text))]
        if len(ids) < len(texts):
            raise CommandError(_("A session ID is a UUID."))
        return VerificationSession.objects.filter(public_id__in=ids).order_by("pk")

    def _by_number(self) -> VerificationSessionQuerySet:
        """Read from standard input: an argument would appear in the shell's history and the process list."""
        if sys.stdin.isatty():
            number = getpass.getpass(_("ID number of the person (not shown): "))
        else:
            number = sys.stdin.readline()
        if not number.strip():
            raise CommandError(_("Give the ID number on standard input, or --session."))
        return sessions_of_person(number)

    def _show(self, found: VerificationSessionQuerySet, before: Preview) -> None:
        for session in found[:20]:
            self.stdout.write(
                f"  {session.public_id}  {session.created_at:%Y-%m-%d}  {session.masked_name}  "
                f"{session.masked_number}  {session.get_verdict_display()}"
            )
        if before.sessions > 20:
            self.stdout.write("  " + _("and %s more") % (before.sessions - 20))
        self.stdout.write(
            _("%(sessions)s records with %(files)s files (%(bytes)s bytes) and %(answers)s answers of Baidu")
            % vars(before)
        )

    def _confirmed(self, sessions: int) -> bool:
        if not sys.stdin.isatty():
            raise CommandError(_("Without a terminal --yes is needed."))
        return input(_("Type the number of records to erase them for good: ")).strip() == str(sessions)

    def _finish(self, erasure: Erasure, path: Path | None) -> None:
        if path is not None:
            path.write_text(
                json.dumps(certificate(erasure), ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
            )
        self.stdout.write(
            _("Erased: %(sessions)s records, %(files)s files. Erasure %(id)s.")
            % {"sessions": len(erasure.sessions), "files": erasure.files, "id": erasure.public_id}
        )
        if erasure.verified_at is None:
            self.stdout.write(
                _("Files that storage still has can no longer be read; faceprint.retain deletes them.")
            )
            sys.exit(NOT_VERIFIED)
