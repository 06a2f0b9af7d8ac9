"""The direction of imports: a room may use what lies below it, never what lies above (design, part 2).

The sources are read, not imported, so the test also sees imports inside functions and for types only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "django_faceprint"
ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / PACKAGE

# Room → what it may import from the package, besides itself and the package's own name.
LOW = {"clock", "conf", "exceptions", "hosts", "key_providers", "media_types", "signals"}
BELOW_SERVICES = LOW | {"client", "models", "privacy"}
BELOW_FACES = BELOW_SERVICES | {"services"}
ARROWS: dict[str, set[str]] = {
    "exceptions": {"client"},  # the upstream error that an exception carries; a type
    "hosts": {"conf", "exceptions"},
    "media_types": {"exceptions"},
    "signals": set(),
    "key_providers": {"exceptions"},
    "conf": {"exceptions", "key_providers"},
    "clock": {"conf", "exceptions"},
    "client": {"exceptions", "media_types"},
    "privacy": {"conf", "exceptions"},
    "models": {"clock", "conf", "exceptions", "privacy"},
    "bundle_check": set(),
    "migrations": {"clock", "models", "privacy"},
    "services": BELOW_SERVICES,
    "alerts": BELOW_FACES,
    "tasks": BELOW_FACES | {"alerts"},
    "checks": BELOW_FACES | {"tasks"},
    "media_response": BELOW_FACES,
    "admin": BELOW_FACES | {"alerts", "media_response", "tasks"},
    "api": BELOW_FACES | {"media_response", "tasks"},
    "management": BELOW_FACES | {"alerts", "bundle_check", "checks", "sandbox", "tasks"},
    "sandbox": set(),
    "testing": BELOW_FACES | {"sandbox"},
    "apps": BELOW_FACES | {"alerts", "checks"},
    "views": BELOW_FACES | {"tasks"},
    "urls": {"views"},
}
# A module that is not named above is a face of its own, whatever it is.
OTHER_FACE = BELOW_FACES | {"tasks"}
FACES = {"admin", "alerts", "api", "checks", "management", "tasks"}

FOREIGN_TO: dict[str, set[str]] = {
    "bundle_check": {"celery", "django", "requests", "rest_framework"},
    "client": {"celery", "django", "rest_framework"},
    "exceptions": {"celery", "django", "rest_framework"},
    "media_types": {"celery", "django", "rest_framework"},
    "privacy": {"celery", "requests", "rest_framework"},
    "models": {"celery", "requests", "rest_framework"},
    "services": {"rest_framework"},
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


def imports_of(path: Path) -> list[Import]:
    relative = path.relative_to(ROOT).with_suffix("")
    is_package = relative.name == "__init__"
    module = ".".join(relative.parent.parts if is_package else relative.parts)
    return list(imports(path.read_text(encoding="utf-8"), module, is_package=is_package))


def wrong_arrows(room: str, found: list[Import]) -> list[str]:
    """The imports that point the wrong way, in words."""
    allowed = ARROWS.get(room, OTHER_FACE) | {room}
    wrong = []
    for target, where in found:
        parts = target.split(".")
        if parts[0] == PACKAGE:
            if len(parts) > 1 and not parts[1].startswith("__") and parts[1] not in allowed:
                wrong.append(f"{where}: {room} must not import {parts[1]}")
        elif parts[0] in FOREIGN_TO.get(room, set()):
            wrong.append(f"{where}: {room} must not import {parts[0]}")
    return wrong


def test_no_import_points_upwards() -> None:
    wrong = [message for path in sources() for message in wrong_arrows(room_of(path), imports_of(path))]
    assert wrong == []


def test_the_arrows_have_no_way_up() -> None:
    """The table itself: nothing that services may reach can reach a face, services or the sandbox."""
    for room in BELOW_SERVICES:
        reached, waiting = set(), [room]
        while waiting:
            for target in ARROWS[waiting.pop()] - reached:
                reached.add(target)
                waiting.append(target)
        assert not reached & (FACES | {"sandbox", "services"}), room


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
        ("services", "from django_faceprint.admin import site", 1),
        ("services", "def late():\n    from .. import tasks", 1),
        ("services", "from ..models import Plan\nfrom ..client.codes import ErrorClass", 0),
        ("client", "import django.conf", 1),
        ("client", "from ..conf import conf", 1),
        ("client", "from ..exceptions import Rejected\nimport requests", 0),
        ("privacy", "from ..models import Plan", 1),
        ("sandbox", "from ..client import inputs", 1),
        ("sandbox", "from . import store\nfrom .media import video", 0),
        ("api", "from ..sandbox import server", 1),
        ("models", "import django_faceprint.services.collect", 1),
    ],
)
def test_a_wrong_arrow_is_seen(room: str, source: str, count: int) -> None:
    found = list(imports(source, f"{PACKAGE}.{room}.module", is_package=False))
    assert len(wrong_arrows(room, found)) == count
