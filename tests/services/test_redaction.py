"""Answers shown without whoever they are about: what is not known to be harmless is told by its length."""

from __future__ import annotations

import json
from typing import Any

import pytest

from django_faceprint.models import UpstreamAnswer
from django_faceprint.services.redaction import redacted
from tests import factories

pytestmark = pytest.mark.django_db


def shown(document: Any) -> Any:
    text = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
    answer = UpstreamAnswer(session=factories.make_session(), endpoint="result_detail", body=text)
    return json.loads(redacted(answer)) if text.startswith(("{", "[")) else redacted(answer)


def test_codes_scores_and_times_stay() -> None:
    document = {
        "success": True,
        "log_id": 1390123456789012345,
        "error_code": "222351",
        "error_msg": "verify failed",
        "result": {
            "verify_result": {"score": 84.4, "liveness_score": 0.93, "spoofing": 0},
            "status": "PASS",
            "time": "2026-03-02 16:00:01",
            "empty": "",
            "nothing": None,
        },
    }
    assert shown(document) == document


@pytest.mark.parametrize(
    "value",
    [
        factories.NAME,
        factories.NUMBER,
        "110105194912310021",
        110105194912310021,
        13800138000,
        "13800138000",
        "浙江省杭州市文三路1号",
        factories.TOKEN,
        "https://brain.baidu.com/x.mp4?token=abc",
        "/9j/4AAQSkZJRgABAQAAAQABAAD",
        "Zhang Sanfeng",
        "19491231",
        "女",
        "JOHN",
        "zhangsan",
    ],
)
def test_what_may_tell_who_it_is_is_told_by_its_length(value: Any) -> None:
    told = f"… ({len(str(value))})"
    assert shown({"result": {"some_name": value, "list": [value, {"deep": value}]}}) == {
        "result": {"some_name": told, "list": [told, {"deep": told}]}
    }
    if len(str(value)) > 8 or not str(value).isascii():
        assert str(value) not in json.dumps(shown({"status": value, str(value): 1}), ensure_ascii=False)


def test_what_is_no_json_is_told_by_its_length() -> None:
    assert shown(f"<html>{factories.NAME}</html>") == "… (16)"
    assert shown("") == "… (0)"


def test_the_answer_of_a_whole_verification_shows_no_person() -> None:
    document = {
        "result": {
            "idcard_ocr_result": {"name": factories.NAME, "id_card_number": factories.NUMBER, "gender": "男"},
            "idcard_confirm": {"name": factories.NAME, "idcard_number": factories.NUMBER},
            "verify_result": {"score": 84.4},
        }
    }
    text = json.dumps(shown(document), ensure_ascii=False)
    for secret in (factories.NAME, factories.NUMBER, "男"):
        assert secret not in text
    assert '"score": 84.4' in text
