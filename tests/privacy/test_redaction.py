"""Redacted raw answers: they show nothing personal, under any name of a field."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.privacy.redaction import MAX_SHOWN, redacted

NAME, NUMBER, TOKEN = "张三丰", "11010519491231002X", "faceprintTokenOfTheTests0123456789"


def shown(document: Any, **known: Any) -> Any:
    text = redacted(json.dumps(document, ensure_ascii=False), **known)
    assert text is not None
    return json.loads(text)


def test_values_that_identify_nobody_are_shown() -> None:
    document = {
        "success": True,
        "code": "222350",
        "message": "身份证姓名不匹配",
        "result": {
            "verify_count": 2,
            "verify_result": [
                {"order": 1, "verify_time": "2026-03-02 16:10:01", "charge_type": "verify", "passed": False},
                {"score": 84.4, "threshold": 80.0, "risk_tag": None, "verify_log_id": "1775000000000000001"},
            ],
            "OCR": [{"error_code": "0", "count": 2}],
        },
        "log_id": 1775000000000000003,
    }
    assert shown(document) == document


def test_names_numbers_and_addresses_are_masked() -> None:
    document = {
        "name": NAME,
        "idcard_number": NUMBER,
        "id_card_number": NUMBER,
        "address": "浙江省杭州市西湖区文三路1号",
        "gender": "男",
        "nation": "汉",
        "birthday": "19491231",
        "issue_authority": "杭州市公安局",
        "expire_time": "长期",
    }
    assert shown(document) == {
        "name": "张**",
        "idcard_number": "110***********002X",
        "id_card_number": "110***********002X",
        "address": "浙江省****",
        "gender": "**** (1)",
        "nation": "**** (1)",
        "birthday": "**** (8)",
        "issue_authority": "**** (6)",
        "expire_time": "长期",
    }


@pytest.mark.parametrize(
    "document",
    [
        {"a_new_field": NAME},
        {"a_new_field": [[NAME, {"deeper": NUMBER}]]},
        [NAME, NUMBER],
        NAME,
        {"message": f"no such person {NUMBER}"},
        {"message": "no such person 110105 19491231 002x"},
        {"message": "no such person １１０１０５１９４９１２３１００２Ｘ"},
        {"message": f"token {TOKEN} is used"},
        {"message": "call 13800138000"},
        {"message": "see https://bj.bcebos.com/v1/x.jpg?authorization=secret"},
        {"error_msg": NUMBER},
        {"log_id": NAME},
        {"code": NUMBER},
        {"code": NAME},
        {"expire_time": NAME},
        {"number": f"{NUMBER}*"},
        {"number": 110105194912310021},
        {"phone": 13800138000},
        {"face_image": "https://bj.bcebos.com/v1/张三丰-00.jpg?authorization=secret"},
        {"face_image": f"https://{NAME}.example/{NUMBER}"},
        {"face_image": "https://110105194912310021.example/"},
        {"front_base64": "/9j/4AAQ" * 20},
        {NUMBER: 1},
        {TOKEN: {"x": 1}},
        {"removed": NAME, "sha256": "0" * 64, "asset": None},
        {"removed": "picture", "sha256": NAME, "asset": None},
        {"removed": "picture", "sha256": "0" * 64, "asset": NAME},
        {"removed": "picture", "sha256": "0" * 64, "asset": {"name": NAME}},
    ],
    ids=lambda document: json.dumps(document)[:40],
)
def test_nothing_personal_gets_through(document: Any) -> None:
    text = redacted(json.dumps(document, ensure_ascii=False))
    assert text is not None
    for secret in (
        *(NAME, "三丰", NUMBER, NUMBER[:-1], TOKEN, "13800138000", "110105194912310021", "secret"),
        *("19491231", "１１０１０５", "4AAQ"),
    ):
        assert secret not in text


def test_known_values_are_hidden_in_any_text() -> None:
    document = {"message": f"姓名 {NAME} 不匹配", NAME: 1, "risk_tag": "李"}
    assert shown(document, known=[NAME, "三丰", ""]) == {
        "message": "姓名 **** 不匹配",
        "****": 1,
        "risk_tag": "李",
    }


def test_a_removed_picture_is_shown_by_its_hash_and_asset() -> None:
    cut = {"removed": "picture", "sha256": "ab" * 32, "asset": "019cad8f-ac00-7c39-a439-fcc786e899d7"}
    assert shown({"idcard_images": {"front_base64": cut}}) == {"idcard_images": {"front_base64": cut}}


def test_urls_show_their_host_only() -> None:
    assert shown({"face_image": "https://bj.bcebos.com/v1/x.jpg?authorization=y"}) == {
        "face_image": "https://bj.bcebos.com/****"
    }


def test_hidden_names_stay_distinct() -> None:
    assert shown({NUMBER: 1, NUMBER[:-1] + "1": 2}) == {"****": 1, "*****": 2}


@pytest.mark.parametrize(
    "text", ["", "no JSON: 张三丰", '{"name": "张三', "[" * 100_000, '{"a": ' + "9" * 5000 + "}"]
)
def test_text_that_is_not_json_is_not_shown(text: str) -> None:
    assert redacted(text) is None


def test_depth_and_length_are_limited() -> None:
    deep: Any = NAME
    for _ in range(200):
        deep = {"x": deep}
    text = redacted(json.dumps(deep))
    assert text is not None
    assert NAME not in text
    long = redacted(json.dumps([1] * MAX_SHOWN))
    assert long is not None
    assert len(long) == MAX_SHOWN + 2


def test_a_lone_surrogate_can_be_encoded() -> None:
    text = redacted('{"message": "\\ud800"}')
    assert text is not None
    assert rb"\ud800" in text.encode("utf-8")


@given(
    st.recursive(
        st.sampled_from([NAME, NUMBER, TOKEN]) | st.integers(-100, 100) | st.booleans() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=12,
    )
)
def test_personal_values_are_hidden_in_any_structure(document: Any) -> None:
    text = redacted(json.dumps(document, ensure_ascii=False), known=[NAME, NUMBER, TOKEN])
    assert text is not None
    for secret in (NAME, NUMBER, TOKEN):
        assert secret not in text
