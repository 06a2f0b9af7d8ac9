"""Calls to Baidu per session, by plan and outcome: ``python -m benchmarks.calls``.

The engine runs against the sandbox over HTTP; the clock is moved to each moment at which a visit is due. The
figures are the sandbox's own count of the requests that it answered. The access_token exists already: all
sessions share it for a month.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from .ordering import set_up

if TYPE_CHECKING:
    from django_faceprint.models import Plan, VerificationSession

#: Name in the sandbox's ledger → heading. The first three are called by the start, the others by the engine.
INTERFACES = {
    "verify_token_generate": "verifyToken",
    "idcard_submit": "idcard",
    "upload_match_image": "matchImage",
    "result_detail": "detail",
    "result_getall": "getall",
    "result_simple": "simple",
    "result_media_query": "media",
    "result_stat": "stat",
}
DOWNLOADS = ("simple_image", "media")
#: How long the person needs on the page.
ON_THE_PAGE = timedelta(minutes=2)
LIVENESS, LOW_SCORE = "223120", "low_score"


@dataclass(frozen=True)
class Cell:
    """The calls of one session by interface, and its downloaded files."""

    calls: tuple[int, ...]
    downloads: int
    verdict: str

    @property
    def total(self) -> int:
        """Calls of the server's interfaces, without downloads."""
        return sum(self.calls)


@dataclass(frozen=True)
class Bench:
    """A sandbox at ``url``, its plans as rows and the clock that both sides read."""

    url: str
    plans: dict[str, Plan]
    clock: Any

    def control(self, method: str, what: str, body: Any = None) -> Any:
        """Ask the sandbox's control interface."""
        import requests

        reply = requests.request(method, f"{self.url}/_sandbox/{what}", json=body, timeout=30)
        reply.raise_for_status()
        return reply.json()

    def counts(self) -> Counter[str]:
        """Requests so far, by interface."""
        calls = self.control("GET", "ledger?hashes=0")["calls"]
        return Counter({name: sum(outcomes.values()) for name, outcomes in calls.items()})

    def start(self, plan_id: str) -> VerificationSession:
        """Start a session with everything that the plan requires."""
        from django_faceprint.client import Identity, MatchImage
        from django_faceprint.verification import StartRequest, start_session
        from tests.factories import NUMBER, image_bytes

        plan = self.plans[plan_id]
        return start_session(
            StartRequest(
                plan_id=plan_id,
                identity=Identity.checked("张三", NUMBER, 0) if plan.needs_identity else None,
                match_image=MatchImage.checked(image_bytes()) if plan.needs_match_image else None,
            )
        )

    def finish(self, session: VerificationSession, outcome: str, **more: Any) -> None:
        """The person comes to the end of the page."""
        self.control("POST", "finish", {"verify_token": session.verify_token, "outcome": outcome, **more})

    def back(self, session: VerificationSession) -> None:
        """The person's browser returns."""
        from django_faceprint.verification import record_return

        record_return(session)

    def work(self, session: VerificationSession, until: timedelta | None = None) -> None:
        """Let the engine visit the session whenever it is due: for *until*, or until all is done."""
        from django_faceprint.engine.runner import collect_due

        end = None if until is None else self.clock() + until
        while True:
            session.refresh_from_db()
            if not session.has_outstanding_work:
                break
            due_at = session.wake_at or self.clock()
            if end is not None and due_at > end:
                break
            self.clock.set(max(due_at, self.clock()))
            collect_due(budget=timedelta(minutes=1), monotonic=time.monotonic)
        if end is not None:
            self.clock.set(end)


Story = Callable[[Bench, "VerificationSession"], None]


def _passes(bench: Bench, session: VerificationSession) -> None:
    bench.work(session, ON_THE_PAGE)
    bench.finish(session, "pass")
    bench.back(session)


def _passes_and_leaves(bench: Bench, session: VerificationSession) -> None:
    bench.work(session, ON_THE_PAGE)
    bench.finish(session, "pass")


def _fails(code: str) -> Story:
    def story(bench: Bench, session: VerificationSession) -> None:
        bench.work(session, ON_THE_PAGE)
        bench.finish(session, "fail", code=code)
        bench.back(session)

    return story


def _fails_then_passes(bench: Bench, session: VerificationSession) -> None:
    _fails(LIVENESS)(bench, session)
    _passes(bench, session)


def _stays_away(bench: Bench, session: VerificationSession) -> None:
    """Nothing happens."""


def _passes_despite_errors(bench: Bench, session: VerificationSession) -> None:
    bench.work(session, ON_THE_PAGE)
    for endpoint in ("result_detail", "result_getall", "result_simple", "result_media_query", "result_stat"):
        bench.control("POST", "faults", {"endpoint": endpoint, "kind": "http_500", "count": 1})
    bench.finish(session, "pass")
    bench.back(session)


OUTCOMES: dict[str, Story] = {
    "passed": _passes,
    "passed_left": _passes_and_leaves,
    "passed_500": _passes_despite_errors,
    "failed_liveness": _fails(LIVENESS),
    "failed_score": _fails(LOW_SCORE),
    "retried": _fails_then_passes,
    "away": _stays_away,
}
LABELS = {
    "en": {
        "plan": "plan",
        "outcome": "outcome",
        "files": "files",
        "calls": "calls",
        "passed": "passed, browser returned",
        "passed_left": "passed, browser did not return",
        "passed_500": "passed, each interface failed once with a 500",
        "failed_liveness": "liveness failed",
        "failed_score": "comparison failed",
        "retried": "failed, then passed",
        "away": "never finished, token expired",
    },
    "zh-hans": {
        "plan": "方案",
        "outcome": "结果",
        "files": "文件",
        "calls": "调用合计",
        "passed": "通过，浏览器返回",
        "passed_left": "通过，浏览器没有返回",
        "passed_500": "通过，每个接口各失败一次（500）",
        "failed_liveness": "活体检测未通过",
        "failed_score": "比对未通过",
        "retried": "先失败，后通过",
        "away": "始终没有完成，令牌过期",
    },
}


def outcomes_of(plan: Plan) -> list[str]:
    """The outcomes that a plan can have."""
    impossible = set()
    if plan.closes_on_failure:
        impossible.add("retried")
    if plan.match_source == plan.MatchSource.LIVENESS_ONLY:
        impossible.add("failed_score")
    return [outcome for outcome in OUTCOMES if outcome not in impossible]


def measure(bench: Bench, plan_id: str, outcome: str) -> Cell:
    """Let one session of this plan have this *outcome*; its calls until nothing is outstanding."""
    from django_faceprint.engine import polling

    # Waits after a failure are random: the same each time.
    polling.jitter.seed(plan_id)
    before = bench.counts()
    session = bench.start(plan_id)
    OUTCOMES[outcome](bench, session)
    bench.work(session)
    spent = bench.counts() - before
    session.refresh_from_db()
    assert not session.has_outstanding_work
    return Cell(
        tuple(spent[name] for name in INTERFACES), sum(spent[name] for name in DOWNLOADS), session.verdict
    )


def warm_up(bench: Bench) -> None:
    """Obtain the access_token, which all sessions share."""
    session = bench.start("25005")
    OUTCOMES["passed"](bench, session)
    bench.work(session)


def heading(language: str) -> str:
    """The first two lines of the table."""
    labels = LABELS[language]
    names = [labels["plan"], labels["outcome"], *INTERFACES.values(), labels["calls"], labels["files"]]
    return f"| {' | '.join(names)} |\n|---|---|" + "---:|" * (len(INTERFACES) + 2)


def row(language: str, plan_id: str, outcome: str, cell: Cell) -> str:
    """One line of the table."""
    figures = [*cell.calls, cell.total, cell.downloads]
    return (
        f"| {plan_id} | {LABELS[language][outcome]} | {' | '.join(str(figure or '') for figure in figures)} |"
    )


@contextmanager
def private_bench() -> Iterator[Bench]:
    """A database, a sandbox and a clock for this process."""
    from django.conf import settings
    from django.db import connection

    from django_faceprint.devtools.sandbox_plans import copy_sandbox_plans
    from django_faceprint.sandbox.clock import SandboxClock
    from django_faceprint.sandbox.server import SandboxServer
    from tests.clock import clock

    name = connection.settings_dict["NAME"]
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    try:
        with SandboxServer(clock=SandboxClock(base=clock), video_size=100_000, image_size=10_000) as server:
            settings.FACEPRINT = {
                **settings.FACEPRINT,
                "API_URL": server.url,
                "H5_URL": server.h5_url,
                "MEDIA_HOSTS": [server.url.removeprefix("http://")],
            }
            yield Bench(server.url, {plan.plan_id: plan for plan in copy_sandbox_plans()}, clock)
    finally:
        connection.creation.destroy_test_db(name, verbosity=0)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calls", description=__doc__.splitlines()[0])
    parser.add_argument("--language", choices=sorted(LABELS), nargs="*", default=["en"])
    options = parser.parse_args(arguments)
    set_up("")
    with private_bench() as bench:
        warm_up(bench)
        cells = [
            (plan_id, outcome, measure(bench, plan_id, outcome))
            for plan_id, plan in bench.plans.items()
            for outcome in outcomes_of(plan)
        ]
    for language in options.language:
        print(f"\n{heading(language)}")
        for cell in cells:
            print(row(language, *cell))


if __name__ == "__main__":
    main(sys.argv[1:])
