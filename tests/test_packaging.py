"""What is shipped: metadata in one place, every data file in the wheel."""

from __future__ import annotations

import ast
import configparser
import re
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import django_faceprint

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "django_faceprint"


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_one_version() -> None:
    try:
        installed = version("django-faceprint")
    except PackageNotFoundError:
        pytest.skip("django-faceprint is not installed here (make test installs it)")
    assert installed == django_faceprint.__version__


def test_every_data_file_is_shipped(setup_cfg: configparser.ConfigParser) -> None:
    patterns = lines(setup_cfg["options.package_data"]["django_faceprint"])
    shipped = {
        path
        for pattern in patterns
        for path in PACKAGE.glob(re.sub(r"\*\*$", "**/*", pattern))
        if path.is_file()
    }
    present = {
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc") and path.name != ".DS_Store"
    }
    assert present - shipped == set()


def test_every_folder_with_code_is_a_package() -> None:
    """setuptools ships no module from a folder without __init__.py; scripts beside assets are data."""
    folders = {path.parent for path in PACKAGE.rglob("*.py") if "assets" not in path.parts}
    assert {folder for folder in folders if not (folder / "__init__.py").exists()} == set()


def test_the_environments_of_tox_are_the_supported_versions(setup_cfg: configparser.ConfigParser) -> None:
    tox = configparser.ConfigParser()
    tox.read(ROOT / "tox.ini", encoding="utf-8")
    names = " ".join(lines(tox["tox"]["env_list"]))
    pythons = {f"3.{minor}" for minor in re.findall(r"(?<=[{,3y])(?:3)?(1\d)(?=[,}-])", names)}
    djangos = {f"{tens}.{ones}" for tens, ones in re.findall(r"\b(?:dj)?([56])(\d)(?=[,}\s]|$)", names)}
    classifiers = lines(setup_cfg["metadata"]["classifiers"])
    assert {
        name for name in pythons if not any(fnmatch(c, f"*Python :: {name}") for c in classifiers)
    } == set()
    assert {
        name for name in djangos if not any(fnmatch(c, f"*Django :: {name}") for c in classifiers)
    } == set()


def test_the_setup_script_parses_on_old_pythons() -> None:
    """It must be able to say there that the Python is too old."""
    source = (ROOT / "scripts" / "setup_env.py").read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 7))
    nodes = list(ast.walk(tree))
    assert not [node for node in nodes if isinstance(node, ast.NamedExpr | ast.Match)]
    assert "from __future__ import annotations" not in source  # 3.7 and newer
    assert not [
        node for node in nodes if isinstance(node, ast.keyword) and node.arg in ("capture_output", "text")
    ]
