"""``python -m benchmarks COMMAND``: measure and print tables; with ``--json`` also write every figure.

Exit status: 0, also when a goal is missed; 1 when something is missing on this machine; 2 for wrong
arguments.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
from pathlib import Path

from .workspace import Missing

COMMANDS = {
    "archive": "whole sessions per second against the floor of the same work, curl and a requests loop",
    "statements": "SQL statements per archived session on PostgreSQL",
    "memory": "peak memory with a long video",
    "celery": "messages per session and Celery's share of the CPU",
    "encryption": "the archive with and without the cipher of its files",
    "rotation": "all rows under new keys: memory and time",
    "seek": "jumps in a long encrypted video against a plain one",
    "access_log_overhead": "requests per second with the access log and without it",
    "console": "the record console at a million records: lists, filters, lookup, and Django's own list",
    "claims": "the queue at millions of sessions: plans and times on PostgreSQL and MariaDB",
}


def _terminate(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def main() -> int:
    """Run one command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(":")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    modules = {name: importlib.import_module(f"benchmarks.{name}") for name in COMMANDS}
    for name, module in modules.items():
        command = commands.add_parser(name, help=COMMANDS[name])
        command.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
        module.add_arguments(command)
    options = parser.parse_args()
    # Also on SIGTERM: stop what was started and remove what was written.
    signal.signal(signal.SIGTERM, _terminate)
    problem = ""
    try:
        report = modules[options.command].run(options)
    except Missing as error:
        problem = str(error)
    except KeyboardInterrupt:
        return 130
    if problem:
        print(problem, file=sys.stderr)
        return 1
    print(report.text())
    if options.json:
        report.write_json(options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
