"""The error table: what matches, and above all what must not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.client import ENDPOINTS, ErrorClass, UpstreamError, classify, explain
from django_faceprint.client.codes import (
    MAX_MESSAGE,
    TABLE,
    clean_code,
    clean_log_id,
    clean_message,
    explanations,
    is_gone_message,
)

GONE = "Token无效或者已过期"
RESULTS = ("result_simple", "result_detail", "result_stat", "result_media_query", "result_getall")
SUBMITS = ("idcard_submit", "upload_match_image")


@pytest.mark.parametrize("endpoint", ENDPOINTS)
@pytest.mark.parametrize(
    ("code", "error_class"),
    [
        ("2", ErrorClass.RETRY),
        ("4", ErrorClass.SLOW_DOWN),
        ("17", ErrorClass.SLOW_DOWN),
        ("18", ErrorClass.SLOW_DOWN),
        ("19", ErrorClass.SLOW_DOWN),
        ("6", ErrorClass.CONFIGURATION),
        ("100", ErrorClass.REAUTHENTICATE),
        ("110", ErrorClass.REAUTHENTICATE),
        ("111", ErrorClass.REAUTHENTICATE),
        ("283400", ErrorClass.CONFIGURATION),
        ("283435", ErrorClass.CONFIGURATION),
        ("283512", ErrorClass.RETRY),
        ("283513", ErrorClass.CALLER),
        ("283520", ErrorClass.CALLER),
        ("216100", ErrorClass.CALLER),
    ],
)
def test_codes_that_mean_the_same_everywhere(code: str, error_class: ErrorClass, endpoint: str) -> None:
    assert classify(code, "", endpoint) is error_class


@pytest.mark.parametrize("code", ["222202", "222351", "222350", "222360", "223114", "223120", "223131"])
def test_verdicts_are_verdicts_only_where_results_are_read(code: str) -> None:
    assert {classify(code, "", endpoint) for endpoint in RESULTS} == {ErrorClass.VERIFICATION_FAILED}
    assert {classify(code, "", endpoint) for endpoint in SUBMITS} == {ErrorClass.CALLER}
    assert classify(code, "", "verify_token_generate") is ErrorClass.UNKNOWN
    assert classify(code, "", "oauth_token") is ErrorClass.UNKNOWN


def test_a_busy_database_is_no_verdict() -> None:
    assert classify("222361", "", "result_detail") is ErrorClass.RETRY


def test_not_started_only_where_results_are_read() -> None:
    assert {classify("283450", "认证尚未开始", endpoint) for endpoint in RESULTS} == {ErrorClass.NOT_STARTED}
    assert classify("283450", "", "verify_token_generate") is ErrorClass.UNKNOWN
    assert classify("283450", "", "idcard_submit") is ErrorClass.UNKNOWN


@pytest.mark.parametrize(
    "message", [GONE, f" {GONE} ", "Token 无效或者已过期", "token无效或者已过期。", "Token无效或者 已过期"]
)
def test_gone_is_known_by_its_text(message: str) -> None:
    for endpoint in (*RESULTS, *SUBMITS):
        assert classify("unknown", message, endpoint) is ErrorClass.GONE
        assert classify("283999", message, endpoint) is ErrorClass.GONE


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Token",
        "Access token invalid or no longer valid",
        "无效或者已过期",
        "Token无效",
        "Token已过期",
        "Token无效或已过期",
        f"不是{GONE}",
        f"{GONE}, 请重试",
        "verify_token无效或者已过期",
    ],
)
def test_similar_texts_are_not_gone(message: str) -> None:
    assert not is_gone_message(message)
    assert classify("unknown", message, "result_detail") is ErrorClass.UNKNOWN


def test_gone_needs_a_verify_token() -> None:
    assert classify("unknown", GONE, "verify_token_generate") is ErrorClass.UNKNOWN
    assert classify("unknown", GONE, "oauth_token") is ErrorClass.UNKNOWN


@pytest.mark.parametrize(
    "message", ["服务异常,请稍后再试", "处理中", "QPS request limit reached", "认证尚未开始"]
)
def test_no_other_message_decides(message: str) -> None:
    assert classify("unknown", message, "result_detail") is ErrorClass.UNKNOWN


@pytest.mark.parametrize(
    "code",
    [
        "0",
        "1",
        "3",
        "5",
        "101",
        "112",
        "-110",
        "0110",
        "110 ",
        "28340",
        "2834000",
        "SDK108",
        "216402",
        "216403",
    ],
)
def test_neighbours_do_not_match(code: str) -> None:
    assert classify(code, "", "result_detail") is ErrorClass.UNKNOWN


@given(st.text(), st.text(), st.text())
def test_anything_can_be_classified(code: str, message: str, endpoint: str) -> None:
    assert isinstance(classify(code, message, endpoint), ErrorClass)
    assert explain(code)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (283400, "283400"),
        ("283400", "283400"),
        (" 110 ", "110"),
        (110.0, "110"),
        (0, "0"),
        (-1, "-1"),
        ("SDK108", "SDK108"),
        ("invalid_client", "invalid_client"),
        (None, "unknown"),
        (True, "unknown"),
        (1.5, "unknown"),
        (float("inf"), "unknown"),
        ([110], "unknown"),
        ({}, "unknown"),
        ("", "unknown"),
        ("110; drop", "unknown"),
        ("11010519491231002X", "unknown"),
        (110105194912310021, "unknown"),
        ("1" * 11, "unknown"),
    ],
)
def test_code_is_text_and_never_more_than_a_code(value: object, code: str) -> None:
    assert clean_code(value) == code


@pytest.mark.parametrize(
    ("value", "log_id"),
    [
        ("1814798895", "1814798895"),
        (9223372036854775807, "9223372036854775807"),
        (" 1 ", "1"),
        (None, ""),
        (True, ""),
        (-1, ""),
        (1.0, ""),
        ("a b", ""),
        ("x" * 65, ""),
        ("日志", ""),
    ],
)
def test_log_id_is_plain_text(value: object, log_id: str) -> None:
    assert clean_log_id(value) == log_id


@pytest.mark.parametrize(
    "secret",
    [
        "11010519491231002X",
        "Ab3dEf6hIj9kLm2nOp5qRs8t",
        "24.0123456789abcdef.2592000.1797600000",
        "https://bj.bcebos.com/v1/b/k.jpg?authorization=x",
        "13800138000",
    ],
)
def test_messages_are_freed_from_secrets(secret: str) -> None:
    cleaned = clean_message(f"参数{secret}错误 param {secret} error")

    assert secret not in cleaned
    assert "参数" in cleaned
    assert "param" in cleaned


@pytest.mark.parametrize(
    "text", ["认证尚未开始", "方案不存在。Plan not exist.", "Open api qps request limit reached", GONE]
)
def test_usual_messages_stay_as_they_are(text: str) -> None:
    assert clean_message(text) == text


def test_message_with_a_format_hint_stays_readable() -> None:
    assert clean_message("param[id_card_number] format error") == "param[id_card_number] format error"


@given(st.text(alphabet=st.characters(), max_size=1000))
def test_messages_are_one_printable_line(text: str) -> None:
    cleaned = clean_message(text)
    assert len(cleaned) <= MAX_MESSAGE
    assert all(char == " " or unicodedata.category(char)[0] not in "CZ" for char in cleaned)


def test_every_row_has_its_reason_and_words() -> None:
    assert all(row.reason and row.explanation for row in TABLE.values())
    assert {explain(code) for code in TABLE} < set(explanations())
    assert explain("999999") == explain("")
    assert explain("999999", ErrorClass.GONE) != explain("999999")


def test_repr_of_an_error_hides_its_message() -> None:
    error = UpstreamError("result_detail", "1", "张三", "2", ErrorClass.UNKNOWN, 200)
    assert "张三" not in repr(error)
