"""The direction of imports: a room may use what lies below it, never what lies above (design, part 2).

The sources are read, not imported, so the test also sees imports inside functions and for types only.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "django_faceprint"
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / PACKAGE

# The floors, from the ground up. A room may use the rooms of lower floors, and on its own floor those that
# stand before it in the row. Faces stand side by side: none uses another, but for the exceptions below.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("exceptions", "signals", "bundle_check", "sandbox"),
    ("key_providers", "client"),
    ("conf",),
    ("clock", "hosts", "privacy"),
    ("models",),
    ("base",),
    ("audit", "upstream"),
    ("evidence",),
    ("records",),
    ("engine",),
    ("devtools", "verification"),
    ("alerts", "jobs"),
    ("maintenance",),
    ("tasks",),
    ("actors", "checks"),
    ("admin", "api", "views", "management", "testing", "apps", "urls", "migrations"),
)
#: Side by side, and yet used: an app's configuration registers the checks, addresses name the views.
BESIDE = {("urls", "views")}
#: Rooms that few may use, whatever floor they are on.
ONLY_FOR = {
    "bundle_check": {"management"},
    "devtools": {"management", "testing"},
    "sandbox": {"management", "testing"},
    "signals": {"base"},
    "checks": {"apps", "management"},
    "tasks": {"admin", "api", "checks", "management", "views"},
}
#: Rooms that use few others, whatever lies below.
ONLY_USES: dict[str, set[str]] = {
    "client": {"exceptions"},
    "sandbox": set(),
    "bundle_check": set(),
    "key_providers": {"exceptions"},
    "privacy": {"conf", "exceptions"},
    "models": {"clock", "conf", "exceptions", "privacy"},
}
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
FACES = set(FLOORS[-1])


def may_use(room: str, other: str) -> bool:
    """Whether *room* may import *other*. A room that is not listed is a face."""
    if room == other or (room, other) in BESIDE:
        return True
    top = len(FLOORS) - 1
    return (
        FLOOR.get(other, top) < FLOOR.get(room, top)
        and room in ONLY_FOR.get(other, {room})
        and other in ONLY_USES.get(room, {other})
    )


FOREIGN_TO: dict[str, set[str]] = {
    "bundle_check": {"celery", "django", "requests", "rest_framework"},
    "client": {"celery", "django", "rest_framework"},
    "exceptions": {"celery", "django", "rest_framework"},
    "privacy": {"celery", "requests", "rest_framework"},
    "models": {"celery", "requests", "rest_framework"},
    **{
        room: {"celery", "rest_framework"}
        for room in ("base", "audit", "upstream", "records", "verification")
    },
    **{
        room: {"rest_framework"}
        for room in ("alerts", "devtools", "engine", "evidence", "jobs", "maintenance")
    },
}


class Import(NamedTuple):
    """One imported name and where it stands."""

    target: str
    where: str


def room_of(path: Path) -> str:
    """The room of a source: the folder or module right below the package."""
    return path.relative_to(SOURCES).parts[0].removesuffix(".py")


def sources() -> list[Path]:
    return sorted(path for path in SOURCES.rglob("*.py") if path != SOURCES / "__init__.py")


def imports(text: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Every imported module of a source, absolute; ``from x import y`` yields ``x.y``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, f"{module}:{node.lineno}")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parents = parts[: len(parts) - node.level + int(is_package)]
                base = ".".join([*parents, *([base] if base else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", f"{module}:{node.lineno}")


def module_of(path: Path) -> str:
    """The dotted name of a source."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def targets(name: str, known: Collection[str]) -> Iterator[str]:
    """The module that an imported name belongs to, if it is one of ours."""
    parent = name.rpartition(".")[0]
    if name in known:
        yield name
    elif parent in known:
        yield parent


def imports_of(path: Path) -> list[Import]:
    relative = path.relative_to(ROOT).with_suffix("")
    is_package = relative.name == "__init__"
    module = ".".join(relative.parent.parts if is_package else relative.parts)
    return list(imports(path.read_text(encoding="utf-8"), module, is_package=is_package))


def wrong_arrows(room: str, found: list[Import]) -> list[str]:
    """The imports that point the wrong way, in words."""
    wrong = []
    for target, where in found:
        parts = target.split(".")
        if parts[0] == PACKAGE:
            if len(parts) > 1 and not parts[1].startswith("__") and not may_use(room, parts[1]):
                wrong.append(f"{where}: {room} must not import {parts[1]}")
        elif parts[0] in FOREIGN_TO.get(room, set()):
            wrong.append(f"{where}: {room} must not import {parts[0]}")
    return wrong


def test_no_import_points_upwards() -> None:
    wrong = [message for path in sources() for message in wrong_arrows(room_of(path), imports_of(path))]
    assert wrong == []


def test_every_room_has_its_floor() -> None:
    assert {room_of(path) for path in sources()} == set(FLOOR)


def test_no_circle_ties_modules_together() -> None:
    """Nor do the modules of one room import each other in a circle."""
    known = {module_of(path): path for path in sources()}
    arrows = {
        module: {found for item in imports_of(path) for found in targets(item.target, known)} - {module}
        for module, path in known.items()
    }
    sorter = TopologicalSorter(arrows)
    sorter.prepare()


def test_only_conf_reads_the_settings_of_faceprint() -> None:
    """``settings.FACEPRINT`` is read, and checked, in one place; the plugin for tests overrides it."""
    readers = {
        path.relative_to(SOURCES).as_posix()
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "FACEPRINT"
    }
    assert readers <= {"conf.py", "testing.py"}


def test_the_package_does_not_read_the_environment() -> None:
    """The example project does, and the key provider that is named for it. Commands may hand it on."""
    readers = {
        path.relative_to(SOURCES).as_posix()
        for path in sources()
        if room_of(path) != "management"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"))
        or (isinstance(node, ast.Import) and any(alias.name == "environ" for alias in node.names))
    }
    assert readers == {"key_providers.py"}


@pytest.mark.parametrize(
    ("room", "source", "count"),
    [
        ("engine", "from django_faceprint.admin import site", 1),
        ("verification", "def late():\n    from .. import tasks", 1),
        ("engine", "from ..models import Plan\nfrom ..client.codes import ErrorClass", 0),
        ("client", "import django.conf", 1),
        ("client", "from ..conf import conf", 1),
        ("client", "from ..exceptions import Rejected\nimport requests", 0),
        ("privacy", "from ..models import Plan", 1),
        ("engine", "from ..verification import sessions", 1),
        ("evidence", "from ..records.lookup import look_up", 1),
        ("records", "from ..devtools import sample_data", 1),
        ("sandbox", "from ..client import inputs", 1),
        ("sandbox", "from . import store\nfrom .media import video", 0),
        ("api", "from ..sandbox import server", 1),
        ("models", "import django_faceprint.engine.runner", 1),
    ],
)
def test_a_wrong_arrow_is_seen(room: str, source: str, count: int) -> None:
    found = list(imports(source, f"{PACKAGE}.{room}.module", is_package=False))
    assert len(wrong_arrows(room, found)) == count
