"""``manage.py faceprint_verify_bundle``: was an evidence bundle changed, and was it made here?"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from django_faceprint import bundle_check
from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.jobs.bundle import PURPOSE
from django_faceprint.privacy.signatures import public_keys


class Command(BaseCommand):
    """Exit status 0: whole, and signed by a known key; 1: not whole; 2: signed by an unknown key; 3: no
    bundle. Needs no database."""

    help = "Verify an evidence bundle without database and network."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("file", metavar="FILE", nargs="?", help="a bundle")
        parser.add_argument(
            "--key",
            action="append",
            default=[],
            metavar="PUBLIC_KEY",
            help="a public key that may have signed it, instead of those of this installation; may be "
            "given several times",
        )
        parser.add_argument(
            "--public-keys", action="store_true", help="print the public keys of this installation"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, then print what was found."""
        keys = self._keys(options["key"])
        if options["public_keys"]:
            self.stdout.write("\n".join(keys))
            return
        if options["file"] is None:
            raise CommandError(_("Which file?"), returncode=bundle_check.NO_BUNDLE)
        result = self._verified(options["file"], keys)
        if options["json"]:
            told = vars(result) | {"findings": [vars(finding) for finding in result.findings]}
            self.stdout.write(json.dumps(told | {"status": result.status}, indent=2))
        else:
            for line in bundle_check.describe(result, _):
                self.stdout.write(line)
        if result.status:
            sys.exit(result.status)

    def _keys(self, given: list[str]) -> list[str]:
        if not all(map(bundle_check.is_public_key, given)):
            raise CommandError(_("--key takes 64 hexadecimal digits."), returncode=bundle_check.NO_BUNDLE)
        if given:
            return [key.strip() for key in given]
        problem = ""
        try:
            return public_keys(PURPOSE)
        except FaceprintConfigurationError as error:
            problem = str(error)
        raise CommandError(problem, returncode=bundle_check.NO_BUNDLE)

    def _verified(self, path: str, keys: list[str]) -> bundle_check.Verification:
        problem = ""
        try:
            with open(path, "rb") as file:
                return bundle_check.verify(file, trusted=keys)
        except bundle_check.NotABundle as error:
            problem = _(bundle_check.REASONS[error.reason])
        except OSError as error:
            problem = error.strerror or type(error).__name__
        raise CommandError(problem, returncode=bundle_check.NO_BUNDLE)
