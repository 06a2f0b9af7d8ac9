"""The setup script of `make demo` and `make test`, run as it is in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of what the script looks at."""
    copy = tmp_path / "project"
    (copy / "scripts").mkdir(parents=True)
    for name in ("setup.cfg", "pyproject.toml", "scripts/setup_env.py", "Makefile"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def interpreter(folder: Path, name: str, start_up: str) -> Path:
    """An interpreter of its own kind: this Python with something done to it at its start."""
    library = folder / f"{name}-library"
    library.mkdir(parents=True)
    path = folder / name
    start_up = f"import sys\nsys.executable = {str(path)!r}\n{start_up}"
    (library / "sitecustomize.py").write_text(start_up, encoding="utf-8")
    path.write_text(f'#!/bin/sh\nPYTHONPATH="{library}" exec "{sys.executable}" "$@"\n', encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def set_up(tree: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script with an index that nobody serves, so that a mistake cannot install anything."""
    return subprocess.run(
        [sys.executable, str(tree / "scripts" / "setup_env.py"), *arguments],
        env={
            "HOME": str(tree),
            "PATH": os.environ["PATH"],
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
            "PIP_RETRIES": "0",
            "PIP_TIMEOUT": "2",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        check=False,
    )


OLD = "sys.version_info = (3, 9, 2, 'final', 0)\n"


def test_an_old_python_is_named(tree: Path, tmp_path: Path) -> None:
    old = interpreter(tmp_path / "bin", "old-python", OLD)
    done = set_up(tree, "--python", str(old))
    assert done.returncode == 1
    assert "is too old" in done.stderr
    assert "3.9.2" in done.stderr
    assert "3.11 is needed" in done.stderr
    assert "Remedy:  " in done.stderr
    assert not (tree / ".venv").exists()


def test_only_old_pythons_on_the_machine(tree: Path, tmp_path: Path) -> None:
    interpreter(tmp_path / "bin", "python3", OLD)
    done = set_up(tree, PATH=str(tmp_path / "bin"))
    if done.returncode == 0 or "Making .venv" in done.stdout:
        # Found outside of PATH, which is what it should do.
        assert "/usr/local/bin/" in done.stdout or "/opt/homebrew/" in done.stdout
        return
    assert "Python 3.11 or newer is needed. Found: " in done.stderr
    assert "is Python 3.9.2" in done.stderr


def test_a_newer_python_is_preferred_to_an_old_python3(tree: Path, tmp_path: Path) -> None:
    interpreter(tmp_path / "bin", "python3", OLD)
    newer = f"python3.{sys.version_info.minor}"
    interpreter(tmp_path / "bin", newer, "")
    done = set_up(tree, PATH=str(tmp_path / "bin"))
    assert "Making .venv with Python 3." in done.stdout


def test_no_python_by_that_name(tree: Path) -> None:
    done = set_up(tree, "--python", str(tree / "missing"))
    assert done.returncode == 1
    assert "is no Python that runs" in done.stderr


def test_no_venv_module(tree: Path, tmp_path: Path) -> None:
    """As Debian ships it: without ensurepip."""
    bare = interpreter(tmp_path / "bin", "bare-python", "sys.modules['ensurepip'] = None\n")
    done = set_up(tree, "--python", str(bare))
    assert done.returncode == 1
    assert "no ensurepip module" in done.stderr
    assert "apt install python3" in done.stderr
    assert not (tree / ".venv").exists()


@pytest.mark.parametrize("retries", ["0", "1"])
def test_no_package_index(tree: Path, retries: str) -> None:
    done = set_up(tree, "--python", sys.executable, PIP_RETRIES=retries)
    assert done.returncode == 1
    assert "No package index could be reached" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_in_the_way(tree: Path) -> None:
    (tree / ".venv").write_text("in the way", encoding="utf-8")
    done = set_up(tree, "--python", sys.executable)
    assert done.returncode == 1
    assert "is no virtual environment" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_write_permission(tree: Path) -> None:
    """Root may write everywhere but into a folder that is gone, so it is that for root."""
    script = tree / "scripts" / "setup_env.py"
    if os.geteuid() == 0:
        script.write_text(script.read_text("utf-8").replace("dir=ROOT", 'dir="/proc"'), encoding="utf-8")
    else:
        tree.chmod(0o555)
    done = set_up(tree, "--python", sys.executable)
    tree.chmod(0o755)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Clone the project into a folder of your own" in done.stderr


def test_a_foreign_environment_is_left_alone(tree: Path) -> None:
    (tree / ".venv").mkdir()
    (tree / ".venv" / "pyvenv.cfg").write_text("home = /nowhere\n", encoding="utf-8")
    done = set_up(tree, "--python", sys.executable)
    assert done.returncode == 1
    assert "was not made by this script" in done.stderr
    assert (tree / ".venv" / "pyvenv.cfg").read_text(encoding="utf-8") == "home = /nowhere\n"


def test_the_environment_of_another_folder_is_not_replaced_through_a_link(tree: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "pyvenv.cfg").touch()
    (shared / "faceprint-setup.json").write_text('{"root": "/elsewhere"}')
    (tree / ".venv").symlink_to(shared)
    done = set_up(tree)
    assert done.returncode == 1
    assert "is a link to the environment of /elsewhere" in done.stderr
    assert sorted(path.name for path in shared.iterdir()) == ["faceprint-setup.json", "pyvenv.cfg"]


def test_make_passes_the_message_on(tree: Path, tmp_path: Path) -> None:
    """`make demo` on a machine with an old Python ends with the remedy and a failure."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    old = interpreter(tmp_path / "bin", "old-python", OLD)
    done = subprocess.run(
        ["make", "demo", f"PYTHON={old}"],
        cwd=tree,
        env={"HOME": str(tree), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode != 0
    assert "is too old" in done.stderr
    assert "Remedy:" in done.stderr
