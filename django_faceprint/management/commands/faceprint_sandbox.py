"""``manage.py faceprint_sandbox``: a local Baidu on loopback, for development, demo and tests."""

from __future__ import annotations

import errno
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils.translation import gettext as _

from django_faceprint.exceptions import replace_exceptions
from django_faceprint.management.stopping import stop_signals
from django_faceprint.sandbox.clock import SandboxClock
from django_faceprint.sandbox.media import DEFAULT_IMAGE_SIZE, DEFAULT_VIDEO_SIZE
from django_faceprint.sandbox.options import APPS, PLANS
from django_faceprint.sandbox.server import SandboxServer


class Command(BaseCommand):
    """Serves the sandbox until Ctrl-C or SIGTERM. Needs no database."""

    help = "Run a local Baidu (faceprint interfaces, H5 page, media) for development and tests."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """See ``--help``."""
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
        parser.add_argument(
            "--port", type=int, default=8400, help="port to listen on (default: 8400; 0: any)"
        )
        parser.add_argument(
            "--allow-remote", action="store_true", help="permit an address that is not loopback"
        )
        parser.add_argument("--public-url", help="base of the URLs in answers (default: http://HOST:PORT)")
        parser.add_argument(
            "--clock-file", type=Path, help="file with the clock's offset, shared by processes"
        )
        parser.add_argument(
            "--qps", type=float, default=50.0, help="calls per second, account and interface; 0: no limit"
        )
        parser.add_argument("--video-size", type=int, default=DEFAULT_VIDEO_SIZE, help="bytes of a video")
        parser.add_argument("--image-size", type=int, default=DEFAULT_IMAGE_SIZE, help="bytes of a picture")

    def handle(self, *args: Any, **options: Any) -> None:
        """Listen, print the addresses, and wait."""

        def remedy(error: Exception) -> CommandError:
            return CommandError(self._remedy(error, options))

        with replace_exceptions(OSError, ValueError, OverflowError, by=remedy):
            server = SandboxServer(
                options["host"],
                options["port"],
                allow_remote=options["allow_remote"],
                log=self.stdout.write if options["verbosity"] >= 2 else None,
                public_url=options["public_url"],
                clock=SandboxClock(options["clock_file"]),
                qps=options["qps"],
                video_size=options["video_size"],
                image_size=options["image_size"],
            )
        with stop_signals() as stop, server:
            self._banner(server)
            self.stdout.flush()
            while not stop.wait(3600):
                pass
        self.stdout.write(_("The sandbox has stopped."))

    def _remedy(self, error: Exception, options: dict[str, Any]) -> str:
        host, port = options["host"], options["port"]
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            return _(
                "Port %(port)s is in use. Stop the other process or choose another port with --port."
            ) % {"port": port}
        if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
            return _("Port %(port)s needs privileges. Choose one above 1023 with --port.") % {"port": port}
        if isinstance(error, OSError):
            return _("Cannot listen on %(host)s: choose an address of this machine with --host.") % {
                "host": host
            }
        if "loopback" in str(error):
            return _(
                "The sandbox lets anybody pass a verification, so it serves loopback only. "
                "Give --allow-remote if %(host)s is really meant."
            ) % {"host": host}
        return str(error)

    def _banner(self, server: SandboxServer) -> None:
        base = server.sandbox.base_url
        lines = [
            _("Sandbox of Baidu's face verification. Not for production: everybody passes."),
            f"  API    {base}",
            f"  H5     {base}/face/print/",
            f"  Media  {base.partition('://')[2]}",
        ]
        lines += [f"  Key    {app.api_key} / {app.secret_key}" for app in APPS[:2]]
        lines += [f"  Plan   {plan.plan_id}  {plan.name}" for plan in PLANS]
        lines.append(_("Stop with Ctrl-C."))
        self.stdout.write("\n".join(lines))
