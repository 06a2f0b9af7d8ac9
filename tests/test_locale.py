"""Every text that a person sees exists in Chinese, and the compiled catalogue is the written one."""

from __future__ import annotations

import gettext
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "django_faceprint"
CATALOGUE = Path("locale/zh_Hans/LC_MESSAGES/django.po")


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue as makemessages would leave it now."""
    if shutil.which("xgettext") is None or shutil.which("msgattrib") is None:
        pytest.skip("GNU gettext is not installed (Debian: apt install gettext)")
    copy = tmp_path_factory.mktemp("locale") / "django_faceprint"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "assets"))
    done = subprocess.run(
        [sys.executable, "-m", "django", "makemessages", "--locale", "zh_Hans"],
        cwd=copy,
        # Without settings, which makemessages does not need and cannot find from there.
        env={name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return copy / CATALOGUE


def select(catalogue: Path, option: str) -> str:
    return subprocess.run(
        ["msgattrib", option, "--no-obsolete", str(catalogue)], capture_output=True, text=True, check=True
    ).stdout


def test_nothing_is_left_in_english(extracted: Path) -> None:
    assert select(extracted, "--untranslated") == ""
    assert select(extracted, "--only-fuzzy") == ""


def test_placeholders_are_kept(extracted: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["msgfmt", "--check-format", "--output-file", str(tmp_path / "out.mo"), str(extracted)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_is_shipped_is_compiled_from_what_is_written(tmp_path: Path) -> None:
    if shutil.which("msgfmt") is None:
        pytest.skip("GNU gettext is not installed (Debian: apt install gettext)")
    fresh = tmp_path / "fresh.mo"
    subprocess.run(["msgfmt", "--output-file", str(fresh), str(PACKAGE / CATALOGUE)], check=True)
    assert messages(fresh) == messages(PACKAGE / CATALOGUE.with_suffix(".mo"))


def messages(path: Path) -> dict[object, str]:
    with path.open("rb") as file:
        catalogue = dict(gettext.GNUTranslations(file)._catalog)  # type: ignore[attr-defined]
    catalogue.pop("", None)
    return catalogue
