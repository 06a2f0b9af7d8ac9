"""``python -m chaos``: makes the run and the control run, and prints the verdict on both."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from example_project.demo.processes import clean_environment, free_port

from .fleet import ROOT, Fleet
from .report import problems, table
from .servers import Broker, Postgres, ProgramMissing


def main() -> int:
    """Exit code 0: the verdict holds."""
    parser = argparse.ArgumentParser(prog="python -m chaos", description=__doc__)
    parser.add_argument("--sessions", type=int, default=5000, help="people in the run (5000)")
    parser.add_argument("--control-sessions", type=int, default=1200, help="people in the control run (1200)")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--seed", type=int, default=1, help="random seed of people and kills (1)")
    parser.add_argument("--keep", action="store_true", help="keep the folders with logs and files")
    # For the process of one run.
    parser.add_argument("--order", choices=("deadline", "arrival"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if options.order:
            return _one_run(options)
        return _both(options)
    except ProgramMissing as missing:
        print(missing, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 130


def _both(options: argparse.Namespace) -> int:
    """Make the run and the control run, one after the other; print the verdict on both."""
    began = time.monotonic()
    runs: list[dict[str, Any]] = []
    for order, people in (("deadline", options.sessions), ("arrival", options.control_sessions)):
        figures = _run_in_process(order, people, options)
        if figures is None:
            return 1
        runs.append(figures)
    main_run, control_run = runs
    seconds = time.monotonic() - began
    found = problems(main_run, control_run)
    print(table(main_run, control_run))
    print(f"Both runs took {seconds:.0f} s.")
    for run in runs:
        for example in run["findings"]["examples"]:
            print(f"  {run['order']}: {example}")
    for history in main_run["work_histories"]:
        print(history)
    for problem in found:
        print(f"PROBLEM  {problem}", file=sys.stderr)
    if options.json is not None:
        document = {"holds": not found, "problems": found, "seconds": round(seconds, 1), "runs": runs}
        options.json.write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    print("The verdict holds." if not found else "The verdict does not hold.")
    return 1 if found else 0


def _run_in_process(order: str, people: int, options: argparse.Namespace) -> dict[str, Any] | None:
    """Make one run in a process with its own settings, servers and folders; ``None`` if it failed."""
    folder = Path(tempfile.mkdtemp(prefix=f"faceprint-chaos-{order}-"))
    environment = clean_environment() | {
        "DJANGO_SETTINGS_MODULE": "chaos.settings",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "LOG_LEVEL": "WARNING",
        "FACEPRINT_ENV_FILE": "",
        "FACEPRINT_VAR": str(folder),
        "FACEPRINT_CLOCK_FILE": str(folder / "clock"),
        "FACEPRINT_QPS": "1000",
        "CHAOS_ORDER": order,
    }
    out = folder / "figures.json"
    command = [sys.executable, "-m", "chaos", "--order", order, "--sessions", str(people)]
    command += ["--seed", str(options.seed), "--json", str(out)]
    child = subprocess.Popen(command, env=environment, cwd=ROOT)
    try:
        child.wait()
        if child.returncode:
            print(f"The run by {order} failed; its logs are in {folder}/logs.", file=sys.stderr)
            options.keep = True
            return None
        figures: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
        return figures
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)


def _one_run(options: argparse.Namespace) -> int:
    postgres, broker = Postgres(), Broker()
    port = free_port()
    os.environ |= {
        "DATABASE_URL": postgres.url,
        "CELERY_BROKER_URL": broker.url,
        "FACEPRINT_API_URL": f"http://127.0.0.1:{port}",
    }
    folder = Path(os.environ["FACEPRINT_VAR"])
    fleet = None
    try:
        postgres.start()
        broker.start()
        import django

        django.setup()
        from .run import Run

        fleet = Fleet(folder, os.environ, port)
        started = time.monotonic()

        def log(text: str) -> None:
            print(f"[{options.order} {time.monotonic() - started:4.0f} s] {text}", flush=True)

        figures = Run(options.sessions, options.order, options.seed, folder, log).go(postgres, broker, fleet)
    finally:
        if fleet is not None:
            fleet.stop()
        broker.stop()
        postgres.stop()
    figures.cpu_seconds = round(postgres.cpu_seconds + _own_cpu_seconds(), 1)
    options.json.write_text(json.dumps(asdict(figures), indent=1), encoding="utf-8")
    return 0


def _own_cpu_seconds() -> float:
    """CPU time of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
