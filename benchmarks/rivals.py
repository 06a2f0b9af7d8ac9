"""The rivals: curl, and the loop around ``requests.get`` that projects write by hand.

``python -m benchmarks.rivals ADDRESS AUTHORITIES SESSIONS FOLDER`` is the loop, started as a
:class:`.workspace.Worker`.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

from .upstream import ANSWERS, MEDIA, Upstream
from .workspace import answer, measured, program, wait_for_go

SECONDS = 60


def curl(upstream: Upstream, network: str, sessions: int, folder: Path, *, parallel: int) -> dict[str, float]:
    """Fetch every session's two large answers and six files with one curl, which writes them to *folder*.

    Only GETs: nothing is parsed, decoded, hashed, encrypted or recorded.
    """
    address = upstream.address(network)
    lines = []
    for number in range(sessions):
        urls = [f"{address}{ANSWERS[name]}" for name in ("detail", "getall")]
        urls += [f"{address}/media/{number}/{name}" for name in MEDIA]
        for position, url in enumerate(urls):
            lines.append(f'url = "{url}"\noutput = "{folder}/{number}-{position}"')
    configuration = folder / "curl.config"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [
        program("curl", install="Debian, Ubuntu: apt install curl"),
        "--silent",
        "--show-error",
        "--fail",
    ]
    command += ["--config", str(configuration)]
    if network == "https":
        command += ["--cacert", upstream.authorities]
    if parallel > 1:
        command += ["--parallel", "--parallel-max", str(parallel)]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"curl fails: {done.stderr[-500:]}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"sessions": sessions, "seconds": seconds, "cpu": cpu}


def loop(address: str, authorities: str, sessions: int, folder: Path) -> int:
    """One session after the other: ask, decode, get, write. No checks, no rows, no cipher."""
    import base64

    import requests

    verify = authorities or True
    done = 0
    give_up_at = time.monotonic() + SECONDS
    for number in range(sessions):
        if time.monotonic() > give_up_at:
            break
        token = {"verify_token": f"benchmarkToken{number:010d}"}
        results = {
            name: requests.post(f"{address}{ANSWERS[name]}", json=token, verify=verify, timeout=20).json()[
                "result"
            ]
            for name in ("detail", "getall", "simple", "media")
        }
        place = folder / str(number)
        place.mkdir()
        for side in ("front", "back"):
            image = base64.b64decode(results["detail"]["idcard_images"][f"{side}_base64"])
            (place / f"{side}.jpg").write_bytes(image)
        urls = [results["simple"]["image"], *results["media"]["processVideo"], *results["media"]["images"]]
        for position, url in enumerate(urls):
            response = requests.get(url, verify=verify, timeout=20)
            response.raise_for_status()
            (place / str(position)).write_bytes(response.content)
        done += 1
    return done


def main() -> None:
    """Wait for "go", run the loop, answer."""
    import requests  # noqa: F401  (not on the clock)

    address, authorities, sessions, folder = sys.argv[1:]
    wait_for_go()
    answer(measured(lambda: {"sessions": loop(address, authorities, int(sessions), Path(folder))}))


if __name__ == "__main__":
    main()
