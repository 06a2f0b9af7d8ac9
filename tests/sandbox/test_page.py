"""The H5 page, driven through its forms as a browser without scripts would."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any
from urllib.parse import urljoin

import pytest
import requests

from django_faceprint.sandbox.pages import REASONS, safe_redirect

from .conftest import NAME, NUMBER, Caller

GONE = "Token无效或者已过期"
OK_URL = "https://app.example.com/kyc/ok?sid=42&x=%2F"
NG_URL = "http://app.example.com/kyc/ng?sid=42#/done"
EVIL = '"><script>alert(1)</script>'


class Document(HTMLParser):
    """Forms with their fields, labels, and everything that a page of this kind must not have."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.labelled: set[str] = set()
        self.controls: list[str] = []
        self.tags: list[str] = []
        self.language: str | None = None
        self.text = ""
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        assert "style" not in values
        assert not any(name.startswith("on") for name in values)
        if tag == "html":
            self.language = values.get("lang")
        if tag == "style":
            self._style = True
        if tag == "form":
            self.forms.append(
                {"action": values["action"], "method": values["method"], "fields": {}, "button": ""}
            )
        if tag in ("input", "select"):
            self.forms[-1]["fields"][values["name"]] = values.get("value", "")
            if values.get("type") == "checkbox":
                self.forms[-1]["fields"].pop(values["name"])
            if values.get("type") != "hidden":
                self.controls.append(values["id"])
        if tag == "option" and not self.forms[-1]["fields"].get("code"):
            self.forms[-1]["fields"]["code"] = values["value"]
        if tag == "label":
            self.labelled.add(values["for"])

    def handle_endtag(self, tag: str) -> None:
        self._style = self._style and tag != "style"

    def handle_data(self, data: str) -> None:
        if self._style:
            return
        self.text += data
        if self.tags and self.tags[-1] == "button" and self.forms and not self.forms[-1]["button"]:
            self.forms[-1]["button"] = data

    def form(self, button: str) -> dict[str, Any]:
        return next(form for form in self.forms if form["button"] == button)


def parsed(answer: requests.Response) -> Document:
    """The page, after the checks that hold for every page."""
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    document = Document(answer.text)
    assert document.language == "zh-CN"
    assert "script" not in document.tags
    assert document.tags.count("h1") == 1
    assert document.tags.count("main") == 1
    assert "沙箱" in document.text
    assert set(document.controls) <= document.labelled
    return document


def submit(caller: Caller, document: Document, button: str, **fields: str) -> requests.Response:
    """Press a button of a page."""
    form = document.form(button)
    assert form["method"] == "post"
    url = urljoin(f"{caller.url}/face/print/", form["action"])
    return caller.http.post(url, data=form["fields"] | fields, allow_redirects=False, timeout=10)


def follow(caller: Caller, answer: requests.Response) -> Document:
    assert answer.status_code == 303
    return parsed(caller.get(urljoin(caller.url, answer.headers["Location"])))


def liveness(caller: Caller, plan: str, verify_token: str, **parameters: str) -> Document:
    """From the first page to the choice of the outcome."""
    document = parsed(caller.page(verify_token, **parameters))
    document = follow(caller, submit(caller, document, "同意并继续", agree="1"))
    entry = caller.server.sandbox.store.plans[plan].identity_entry
    if entry == "typed":
        document = follow(caller, submit(caller, document, "下一步", name=NAME, number=NUMBER))
    if entry == "ocr":
        assert document.form("下一步")["fields"]["number"] == NUMBER
        assert "img" in document.tags
        document = follow(caller, submit(caller, document, "下一步"))
    return document


@pytest.mark.parametrize("plan", ["25001", "25002", "25003", "25004", "25005", "25006", "25007"])
@pytest.mark.parametrize(("button", "target"), [("通过", OK_URL), ("未通过", NG_URL)])
def test_the_whole_flow_for_every_plan(caller: Caller, plan: str, button: str, target: str) -> None:
    verify_token = caller.prepared(plan)
    document = liveness(caller, plan, verify_token, successUrl=OK_URL, failedUrl=NG_URL)
    answer = submit(caller, document, button)
    assert (answer.status_code, answer.headers["Location"]) == (302, target)
    entry = caller.ledger(verify_token)
    assert entry["attempts"][0]["passed"] is (button == "通过")


@pytest.mark.parametrize(("code", "label"), REASONS)
def test_every_reason_of_the_page_reaches_the_result(caller: Caller, code: str, label: str) -> None:
    verify_token = caller.prepared("25001")
    document = liveness(caller, "25001", verify_token)
    assert label in document.text
    answer = submit(caller, document, "未通过", code=code)
    assert "认证未通过" in parsed(answer).text
    expected = 900002 if code == "low_score" else int(code)
    assert caller.error("result/detail", verify_token=verify_token) == expected


def test_redirect_config_wins_over_the_parameters_unless_switched(caller: Caller) -> None:
    config = {"success_url": "https://config.example/ok", "failed_url": "https://config.example/ng"}
    for precedence, host in (("config", "config.example"), ("query", "app.example.com")):
        caller.control("PUT", "switches", {"redirect_precedence": precedence})
        verify_token = caller.prepared("25001", redirect_config=config)
        answer = caller.step("finish", verify_token, outcome="pass", successUrl=OK_URL, failedUrl=NG_URL)
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith(f"https://{host}/")


def test_a_switch_adds_parameters_to_redirects(caller: Caller) -> None:
    caller.control("PUT", "switches", {"redirect_extra": "state=success"})
    verify_token = caller.prepared("25001")
    answer = caller.step("finish", verify_token, outcome="fail", failedUrl=NG_URL)
    assert answer.headers["Location"] == "http://app.example.com/kyc/ng?sid=42&state=success#/done"


def test_without_a_url_the_result_is_a_page(caller: Caller) -> None:
    verify_token = caller.prepared("25002")
    document = liveness(caller, "25002", verify_token)
    failed = parsed(submit(caller, document, "未通过", code="223114"))
    assert "人脸模糊（223114）" in failed.text
    assert "重新认证" in failed.text
    document = parsed(caller.page(verify_token))
    document = follow(caller, submit(caller, document, "下一步", name=NAME, number=NUMBER))
    assert "认证通过" in parsed(submit(caller, document, "通过")).text
    assert GONE in parsed(caller.page(verify_token)).text


def test_giving_up_decides_nothing_and_never_redirects(caller: Caller) -> None:
    verify_token = caller.prepared("25001")
    document = liveness(caller, "25001", verify_token, successUrl=OK_URL, failedUrl=NG_URL)
    answer = submit(caller, document, "放弃")
    assert answer.status_code == 200
    assert "已放弃认证" in parsed(answer).text
    assert caller.error("result/detail", verify_token=verify_token) == 283450
    entry = caller.ledger(verify_token)
    assert (entry["state"], entry["gave_up"], entry["attempts"]) == ("in_progress", True, [])
    assert "通过" in parsed(caller.page(verify_token)).text


@pytest.mark.parametrize("path", ["/face/print", "/face/print/"])
def test_the_page_answers_with_and_without_its_slash(caller: Caller, path: str) -> None:
    verify_token = caller.prepared("25001")
    assert "授权确认" in parsed(caller.get(f"{caller.url}{path}?token={verify_token}")).text
    assert GONE in parsed(caller.get(f"{caller.url}{path}")).text


@pytest.mark.parametrize(("plan", "call"), [("25001", "idcard/submit"), ("25004", "uploadMatchImage")])
def test_missing_preparation_is_an_error_page(caller: Caller, plan: str, call: str) -> None:
    verify_token = caller.generate(plan)
    for answer in (caller.page(verify_token), caller.step("finish", verify_token, outcome="pass")):
        assert call in parsed(answer).text
    assert caller.ledger(verify_token)["state"] == "issued"
    verify_token = caller.prepared(plan)
    assert caller.ledger(verify_token)["state"] == "prepared"


@pytest.mark.parametrize("plan", ["25002", "25003"])
def test_the_identity_is_required(caller: Caller, plan: str) -> None:
    verify_token = caller.prepared(plan)
    answer = caller.step("finish", verify_token, outcome="pass")
    assert answer.status_code == 400
    assert "请先填写身份信息" in parsed(answer).text
    wrong = (
        {"name": "", "number": NUMBER},
        {"name": NAME},
        {"name": NAME, "number": NUMBER, "certificate_type": "1"},
    )
    for fields in wrong:
        assert caller.step("identity", verify_token, **fields).status_code == 400
    assert caller.step("finish", verify_token, outcome="nonsense").status_code == 400
    assert caller.ledger(verify_token)["attempts"] == []


def test_unknown_codes_and_steps_are_refused(caller: Caller) -> None:
    verify_token = caller.prepared("25001")
    assert caller.step("finish", verify_token, outcome="fail", code="-1").status_code == 400
    assert caller.step("finish", verify_token, outcome="fail", code="<b>").status_code == 400
    assert caller.step("identity", verify_token, name=NAME, number=NUMBER).status_code == 400
    assert caller.step("elsewhere", verify_token).status_code == 404
    assert caller.http.put(f"{caller.url}/face/print/", timeout=10).status_code == 405


def test_text_from_outside_is_escaped(caller: Caller) -> None:
    evil_plan = {"title": EVIL, "consent_text": EVIL, "identity_entry": "typed", "name": EVIL}
    caller.control("PUT", "plans/66001", evil_plan)
    verify_token = caller.generate("66001")
    query = {"successUrl": f"https://a.example/{EVIL}", "failedUrl": f"javascript:{EVIL}"}
    answers = [
        caller.page(verify_token, **query),
        caller.page(EVIL),
        caller.step("identity", verify_token, name=f"{EVIL}\n", number=EVIL + "\t" + EVIL, **query),
        caller.step("identity", verify_token, name=EVIL, number="", **query),
    ]
    caller.step("identity", verify_token, name=EVIL, number=EVIL)
    answers.append(caller.page(verify_token, **query))
    caller.control("POST", "script", {"verify_token": verify_token, "message": EVIL})
    answers.append(caller.step("finish", verify_token, outcome="fail"))
    for answer in answers:
        assert "<script" not in answer.text
        parsed(answer)
    confirm = caller.result("result/getall", verify_token=verify_token)["verify_result"][0]["idcard_confirm"]
    assert confirm["name"] == EVIL


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:text/html,x",
        "//evil.example/",
        "/relative",
        "http:///nohost",
        "https://a.example/\r\nSet-Cookie: a=b",
        "https://a.example/ space",
        "https://a.example\\@evil.example",
        "https://[broken",
        "http://a.example:99999/",
        "",
        "https://a.example/" + "x" * 5000,
    ],
)
def test_redirects_go_to_full_http_urls_only(caller: Caller, url: str) -> None:
    assert safe_redirect(url) is None
    verify_token = caller.prepared("25001")
    answer = caller.step("finish", verify_token, outcome="pass", successUrl=url)
    assert answer.status_code == 200
    assert "Location" not in answer.headers


def test_chinese_in_a_url_is_percent_encoded(caller: Caller) -> None:
    verify_token = caller.prepared("25001")
    answer = caller.step(
        "finish", verify_token, outcome="pass", successUrl="https://a.example/完成?名=%E4%B8%AD"
    )
    assert answer.headers["Location"] == "https://a.example/%E5%AE%8C%E6%88%90?%E5%90%8D=%E4%B8%AD"


def test_a_second_finish_finds_the_token_used(caller: Caller) -> None:
    verify_token = caller.prepared("25001")
    assert caller.step("finish", verify_token, outcome="pass", successUrl=OK_URL).status_code == 302
    assert GONE in caller.step("finish", verify_token, outcome="fail", failedUrl=NG_URL).text
    assert len(caller.ledger(verify_token)["attempts"]) == 1


def test_the_sample_cards_are_pictures(caller: Caller) -> None:
    for side in ("front", "back"):
        answer = caller.get(f"{caller.url}/face/print/card.png?side={side}")
        assert answer.headers["Content-Type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
