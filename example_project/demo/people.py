"""The people of the demo: their plans and actions, through the API and the H5 page over HTTP."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from typing import Any

import requests
from PIL import Image, ImageDraw

from .processes import DemoFailed

# Numbers with valid check digits that nobody has: the national standard's own example, and one of
# the same form for the residence permit of Hong Kong, Macao and Taiwan.
MAINLAND = ("张三", "11010519491231002X", 0)
RESIDENCE_PERMIT = ("李四", "810000199408230021", 4)
TIMEOUT = 30


@dataclass(frozen=True)
class Person:
    """One verification: the plan, the attempts on the page, and the right verdict.

    ``tries`` are outcomes of the H5 page: ``pass``, ``demote`` (pass on recorded video), ``giveup`` or a
    failure code. ``returns`` is False for a browser that is closed on the way back.
    """

    reference: str
    plan: str
    tries: tuple[str, ...]
    verdict: str
    opens: bool = True
    returns: bool = True
    identity: tuple[str, str, int] = MAINLAND

    @property
    def needs_clock(self) -> bool:
        """Whether the session is decided only after the end of its verify_token."""
        return self.verdict == "expired" or (self.verdict == "failed" and self.plan in RETRY_PLANS)


SPECIFIED_PLANS = frozenset({"25001", "25006"})
ENTERED_PLANS = frozenset({"25002", "25003", "25007"})
MATCH_PLANS = frozenset({"25004"})
RETRY_PLANS = frozenset({"25002", "25007"})


def people() -> list[Person]:
    """The twenty-five people of the demo: every plan of the sandbox and every verdict."""
    return list(_numbered())


def _numbered() -> Iterator[Person]:
    cases: list[tuple[str, tuple[str, ...], str, dict[str, Any]]] = [
        # First: only the engine's own polling finds its result.
        ("25001", ("pass",), "passed", {"returns": False}),
        ("25001", ("pass",), "passed", {}),
        ("25001", ("pass",), "passed", {}),
        ("25001", ("223120",), "failed", {}),
        ("25001", ("222351",), "failed", {}),
        ("25002", ("pass",), "passed", {}),
        ("25002", ("pass",), "passed", {}),
        ("25002", ("223114", "pass"), "passed", {}),
        ("25002", ("223120",), "failed", {}),
        ("25003", ("pass",), "passed", {}),
        ("25003", ("pass",), "passed", {}),
        ("25003", ("223131",), "failed", {}),
        ("25004", ("pass",), "passed", {}),
        ("25004", ("pass",), "passed", {}),
        ("25004", ("low_score",), "failed", {}),
        ("25005", ("pass",), "passed", {}),
        ("25005", ("pass",), "passed", {}),
        ("25005", ("223120",), "failed", {}),
        ("25006", ("pass",), "passed", {"identity": RESIDENCE_PERMIT}),
        ("25006", ("demote",), "passed", {}),
        ("25007", ("pass",), "passed", {}),
        ("25007", ("222354", "223120", "pass"), "passed", {}),
        ("25001", ("giveup",), "expired", {"returns": False}),
        ("25003", ("giveup",), "expired", {"returns": False}),
        ("25001", (), "expired", {"opens": False, "returns": False}),
    ]
    for number, (plan, tries, verdict, more) in enumerate(cases, start=1):
        yield Person(f"DEMO-{number:03}", plan, tries, verdict, **more)


class Host:
    """The server of a host that uses the API."""

    def __init__(self, web_url: str, token: str) -> None:
        self._api = f"{web_url}/api/faceprint"
        self._http = requests.Session()
        self._http.trust_env = False
        self._http.headers["Authorization"] = f"Token {token}"

    def start(self, person: Person) -> dict[str, Any]:
        """Start a session; submits half of the identities with the first call, the others after it."""
        body: dict[str, Any] = {
            "plan": person.plan,
            "reference": person.reference,
            "purpose": "demo",
            "consent": {
                "reference": f"consent-{person.reference}",
                "notice_version": "1",
                "given_at": datetime.now(UTC).isoformat(),
                "channel": "demo",
                "separate": True,
                "names_recipient": True,
                "alternative_offered": True,
            },
        }
        extra = self._preparation(person)
        at_once = int(person.reference[-1]) % 2 == 0
        if at_once:
            body |= extra
        session = self._call("POST", "/sessions/", body, {"Idempotency-Key": person.reference})
        if not at_once:
            for name, content in extra.items():
                session = self._call("POST", f"/sessions/{session['id']}/{name.replace('_', '-')}/", content)
        if not session["h5_url"]:
            raise DemoFailed(f"{person.reference}: the API gave no h5_url.")
        return session

    def session(self, session_id: str) -> dict[str, Any]:
        """The session in the API."""
        return self._call("GET", f"/sessions/{session_id}/")

    def media(self, session_id: str) -> list[dict[str, Any]]:
        """The files of a session in the API."""
        files: Any = self._call("GET", f"/sessions/{session_id}/media/")
        return list(files)

    def read_range(self, url: str) -> bytes:
        """The first kilobyte of a file, by Range."""
        reply = self._http.get(url, headers={"Range": "bytes=0-1023"}, timeout=TIMEOUT)
        if reply.status_code != 206:
            raise DemoFailed(f"A range of a file was answered with HTTP {reply.status_code}, not 206.")
        return reply.content

    @staticmethod
    def _preparation(person: Person) -> dict[str, Any]:
        if person.plan in SPECIFIED_PLANS:
            name, number, kind = person.identity
            return {"identity": {"name": name, "number": number, "certificate_type": kind}}
        if person.plan in MATCH_PLANS:
            picture = base64.b64encode(match_image(person.reference)).decode()
            return {"match_image": {"image": picture}}
        return {}

    def _call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        reply = self._http.request(
            method, self._api + path, json=body, headers=headers, timeout=TIMEOUT, allow_redirects=False
        )
        if not reply.ok:
            problem = re.sub(r"\s+", " ", reply.text)[:300]
            raise DemoFailed(f"{method} {path} answered HTTP {reply.status_code}: {problem}")
        answer: dict[str, Any] = reply.json()
        return answer


class Browser:
    """A person's browser on the H5 page: forms over HTTP, cookies kept, redirects followed by hand."""

    def __init__(self) -> None:
        self._http = requests.Session()
        self._http.trust_env = False

    def verify(self, person: Person, h5_url: str) -> None:
        """Go through the page with the attempts of *person*."""
        if not person.opens:
            return
        page = self._get(h5_url)
        token = _hidden(page.text, "token")
        root = h5_url.split("?", 1)[0]
        for outcome in person.tries:
            self._post(f"{root}consent", {"token": token, "agree": "1"}, (303,))
            if person.plan in ENTERED_PLANS:
                name, number, kind = person.identity
                self._post(
                    f"{root}identity",
                    {"token": token, "name": name, "number": number, "certificate_type": str(kind)},
                    (303,),
                )
            form = {"token": token, "outcome": "fail", "code": outcome}
            if outcome in ("pass", "giveup", "demote"):
                form = {"token": token, "outcome": "pass" if outcome == "demote" else outcome}
            if outcome == "demote":
                form["demote"] = "1"
            done = self._post(f"{root}finish", form, (200, 302))
            if outcome != "giveup" and done.status_code != 302:
                raise DemoFailed(f"{person.reference}: the H5 page did not send the browser back.")
            if person.returns and done.status_code == 302:
                self._get(done.headers["Location"])

    def _get(self, url: str) -> requests.Response:
        reply = self._http.get(url, timeout=TIMEOUT, allow_redirects=False)
        if reply.status_code != 200:
            raise DemoFailed(f"A page answered the browser with HTTP {reply.status_code}.")
        return reply

    def _post(self, url: str, form: dict[str, str], expected: tuple[int, ...]) -> requests.Response:
        reply = self._http.post(url, data=form, timeout=TIMEOUT, allow_redirects=False)
        if reply.status_code not in expected:
            step = url.rsplit("/", 1)[-1]
            raise DemoFailed(f"The H5 page answered {step!r} with HTTP {reply.status_code}.")
        return reply


def _hidden(html: str, name: str) -> str:
    match = re.search(rf'name="{name}" value="([^"]*)"', html)
    if match is None:
        raise DemoFailed(f"The H5 page has no field {name!r}.")
    return unescape(match.group(1))


def match_image(seed: str) -> bytes:
    """A drawn face as a JPEG, in place of a photograph from the host's own records."""
    image = Image.new("RGB", (480, 640), (214, 226, 240))
    draw = ImageDraw.Draw(image)
    shade = 150 + sum(seed.encode()) % 60
    draw.ellipse((110, 120, 370, 470), fill=(shade + 40, shade + 10, shade - 20))
    for eye in (190, 290):
        draw.ellipse((eye - 18, 250, eye + 18, 280), fill=(40, 40, 60))
    draw.arc((180, 330, 300, 410), 20, 160, fill=(140, 60, 60), width=8)
    output = io.BytesIO()
    image.save(output, "JPEG", quality=88)
    return output.getvalue()
