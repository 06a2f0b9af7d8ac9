"""``manage.py faceprint_verify_bundle``: is an evidence bundle unchanged, and was it made here?"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from django_faceprint import bundle_check
from django_faceprint.exceptions import FaceprintConfigurationError, replace_exceptions
from django_faceprint.jobs.bundle import PURPOSE
from django_faceprint.privacy.signatures import public_keys


class Command(BaseCommand):
    """Exit status 0: whole, and signed by a known key; 1: not whole; 2: whole, but signed by an unknown key;
    3: no bundle, or it cannot be read. Needs no database."""

    help = "Verify an evidence bundle without database and network."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("file", metavar="FILE", nargs="?", help="a bundle")
        parser.add_argument(
            "--key",
            action="append",
            default=[],
            metavar="PEM_FILE",
            help="public keys to trust instead of those of this installation; may be given several times",
        )
        parser.add_argument(
            "--public-keys", action="store_true", help="print the public keys of this installation"
        )
        parser.add_argument("--json", action="store_true", help="print JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        """Verify, then print the result."""
        if options["public_keys"]:
            self.stdout.write(_own_keys(), ending="")
            return
        if options["file"] is None:
            raise _error(_("Which file?"))
        with replace_exceptions(
            bundle_check.NotVerifiable, OSError, by=lambda error: _error(bundle_check.explain(error, _))
        ):
            trusted = bundle_check.read_keys(options["key"]) or _own_keys()
            with open(options["file"], "rb") as file:
                result = bundle_check.verify(file, trusted=trusted)
        if options["json"]:
            findings = [vars(finding) for finding in result.findings]
            fields = vars(result) | {"findings": findings, "status": result.status}
            self.stdout.write(json.dumps(fields, indent=2))
        else:
            self.stdout.write("\n".join(bundle_check.describe(result, _)))
        if result.status:
            sys.exit(result.status)


def _own_keys() -> str:
    with replace_exceptions(FaceprintConfigurationError, by=lambda error: _error(str(error))):
        return "".join(public_keys(PURPOSE))


def _error(text: str) -> CommandError:
    return CommandError(text, returncode=bundle_check.NO_BUNDLE)
