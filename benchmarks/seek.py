"""``seek``: jumps in a long encrypted video against a plain one.

Both videos have the same size and are requested through the API's own view in this process: permission, entry
of the access log, range. For the plain one only the reader is replaced. The two alternate at the same places.
"""

from __future__ import annotations

import argparse
import random
import time
from contextlib import ExitStack
from typing import Any

from . import plain, sessions
from .project import Project
from .report import Goal, Report, Spread
from .servers import sqlite
from .workspace import folder

MEGABYTES = 500
JUMPS = 200
ROUNDS = 5
GOAL = 1.3
#: A range as players request it.
PART = 1 << 20
_PIECE = 1 << 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's own options."""
    parser.add_argument(
        "--megabytes", type=int, default=MEGABYTES, help=f"of each video (default: {MEGABYTES})"
    )
    parser.add_argument("--jumps", type=int, default=JUMPS, help=f"of each round (default: {JUMPS})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"default: {ROUNDS}")


def run(options: argparse.Namespace) -> Report:
    """Measure."""
    report = Report(f"Seek: jumps in a video of {options.megabytes} MB")
    size = options.megabytes * 1_000_000
    first: dict[bool, list[float]] = {True: [], False: []}
    part: dict[bool, list[float]] = {True: [], False: []}
    with ExitStack() as stack:
        rows = stack.enter_context(folder())
        home = stack.enter_context(folder(in_memory=True, needed=3 * size))
        project = Project(database=sqlite(rows / "database.sqlite3"), archive=str(home / "archive"))
        project.set_up()
        sessions.migrate()
        viewer = _viewer()
        videos = {encrypted: _video(viewer, size, encrypted=encrypted) for encrypted in (True, False)}
        if videos[True].sha256 != videos[False].sha256:
            raise AssertionError("The videos differ.")
        order = random.Random(1)
        for encrypted in videos:
            _jump(viewer, videos[encrypted], 0, encrypted=encrypted)
        for _ in range(options.rounds):
            times: dict[tuple[bool, bool], list[float]] = {}
            for _ in range(options.jumps):
                start = order.randrange(1, size - PART)
                for encrypted in order.sample([True, False], 2):
                    to_first, to_end = _jump(viewer, videos[encrypted], start, encrypted=encrypted)
                    times.setdefault((encrypted, True), []).append(1000 * to_first)
                    times.setdefault((encrypted, False), []).append(1000 * to_end)
            for encrypted in videos:
                first[encrypted].append(Spread.of(times[encrypted, True]).median)
                part[encrypted].append(Spread.of(times[encrypted, False]).median)
    report.table(
        f"Medians of {options.jumps} jumps, ms; {options.rounds} rounds (least–most)",
        ["video", "to the first bytes", "1 MiB"],
        [
            [
                "encrypted" if encrypted else "plain",
                str(Spread.of(first[encrypted])),
                str(Spread.of(part[encrypted])),
            ]
            for encrypted in videos
        ],
    )
    for name, found in {"to the first bytes": first, "1 MiB": part}.items():
        ratios = [with_it / without for with_it, without in zip(found[True], found[False], strict=True)]
        report.goals.append(Goal(f"jump, {name}, encrypted / plain", Spread.of(ratios), at_most=GOAL))
    report.figures = {
        "first bytes, ms": {"encrypted": first[True], "plain": first[False]},
        "1 MiB, ms": {"encrypted": part[True], "plain": part[False]},
    }
    return report


def _viewer() -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.create_superuser("viewer")


def _video(viewer: Any, size: int, *, encrypted: bool) -> Any:
    """An archived video of *size* bytes, written by the product."""
    from importlib.resources import files

    from django_faceprint.evidence import files as evidence_files
    from django_faceprint.models import MediaAsset, VerificationSession

    session = VerificationSession.objects.create(
        environment="sandbox", plan=sessions.plan(), application="default", created_by=viewer
    )
    asset = MediaAsset(session=session, kind=MediaAsset.Kind.VIDEO, source=MediaAsset.Source.MEDIA)
    clip = files("django_faceprint.sandbox").joinpath("assets/face.mp4").read_bytes()
    filling = size - len(clip)

    def content() -> Any:
        yield clip + filling.to_bytes(4, "big") + b"free"
        left = filling - 8
        while left:
            yield bytes(min(left, _PIECE))
            left -= min(left, _PIECE)

    (name,) = evidence_files.reserve_names(session.pk, 1)
    with plain.files(encrypted=encrypted):
        for column, value in evidence_files.write_checked(asset, name, content()).items():
            setattr(asset, column, value)
    asset.save()
    return asset


def _jump(viewer: Any, asset: Any, start: int, *, encrypted: bool) -> tuple[float, float]:
    """Seconds until the first bytes of a range, and until its end."""
    from rest_framework.test import APIRequestFactory, force_authenticate

    from django_faceprint.api.views import MediaContentView

    view = MediaContentView.as_view()
    request = APIRequestFactory().get("/", headers={"Range": f"bytes={start}-{start + PART - 1}"})
    force_authenticate(request, viewer)
    with plain.files(encrypted=encrypted):
        began = time.perf_counter()
        response = view(request, id=str(asset.public_id))
        pieces = iter(response.streaming_content)
        count = len(next(pieces))
        to_first = time.perf_counter() - began
        count += sum(map(len, pieces))
        to_end = time.perf_counter() - began
        response.close()
    if response.status_code != 206 or count != PART:
        raise AssertionError(f"{count} bytes with status {response.status_code} instead of a part.")
    return to_first, to_end
