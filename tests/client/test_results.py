"""Answers as documented, as seen, and as nobody should send them."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.client.results import (
    AllResult,
    DetailResult,
    MediaResult,
    OcrResult,
    StatCount,
    UnreadableResult,
    parse_all,
    parse_detail,
    parse_media,
    parse_simple,
    parse_stat,
    parse_time,
    parse_verify_token,
)

FRONT = b"\xff\xd8front"
BACK = b"\xff\xd8back"
OCR = {
    "name": "张三",
    "gender": "男",
    "nation": "汉",
    "birthday": "19491231",
    "address": "北京市朝阳区示例路1号",
    "id_card_number": "11010519491231002X",
    "issue_authority": "北京市公安局朝阳分局",
    "issue_time": "20120101",
    "expire_time": "长期",
}
IMAGES = {
    "front_base64": base64.b64encode(FRONT).decode(),
    "back_base64": base64.b64encode(BACK).decode(),
}
CONFIRM = {"name": "张三", "idcard_number": "11010519491231002X"}


def detail_document(**replaced: Any) -> dict[str, Any]:
    """The sample of API reference 3.5."""
    result = {
        "verify_result": {"score": 93.78, "liveness_score": 0.967, "spoofing": 0.0},
        "idcard_ocr_result": OCR,
        "idcard_images": IMAGES,
        "idcard_confirm": CONFIRM,
        "is_demote": False,
    }
    return {"success": True, "result": {**result, **replaced}, "log_id": "180000000000005"}


EXPECTED = DetailResult(
    score=93.78,
    liveness_score=0.967,
    spoofing=0.0,
    is_demote=False,
    ocr=OcrResult(
        name="张三",
        gender="男",
        nation="汉",
        birthday="19491231",
        address="北京市朝阳区示例路1号",
        number="11010519491231002X",
        issue_authority="北京市公安局朝阳分局",
        issue_time="20120101",
        expire_time="长期",
    ),
    front_image=FRONT,
    back_image=BACK,
    confirmed_name="张三",
    confirmed_number="11010519491231002X",
)


def test_detail_as_documented() -> None:
    assert parse_detail(detail_document()) == EXPECTED


@pytest.mark.parametrize(
    "document",
    [
        detail_document(
            verify_result={"score": "93.78", "liveness_score": "0.967", "spoofing": "0"}, is_demote="false"
        ),
        detail_document(
            verify_result=[{"score": 93.78, "liveness_score": 0.967, "spoofing": 0}], is_demote=0
        ),
        detail_document(idcard_ocr_result=[OCR], idcard_images=[IMAGES], idcard_confirm=[CONFIRM]),
        detail_document(
            idcard_ocr_result=None,
            idcard_images=None,
            idcard_confirm={**CONFIRM, "idcard_ocr_result": OCR, "idcard_images": IMAGES},
        ),
        detail_document(something_new={"a": [1]}, status=1),
        {**detail_document(), "result": [detail_document()["result"]]},
        {**detail_document(is_demote=None), "is_demote": False},
        detail_document(
            is_demote=None,
            verify_result={"score": 93.78, "liveness_score": 0.967, "spoofing": 0, "is_demote": False},
        ),
    ],
    ids=["strings", "array", "arrays", "nested", "unknown", "result array", "demote top", "demote inner"],
)
def test_detail_in_other_clothes(document: dict[str, Any]) -> None:
    assert parse_detail(document) == EXPECTED


@pytest.mark.parametrize(
    "result", [{}, {"verify_result": None}, {"verify_result": [], "idcard_confirm": ""}, [{}]]
)
def test_missing_fields_are_none_and_not_odd(result: Any) -> None:
    assert parse_detail({"success": True, "result": result}) == DetailResult()


@pytest.mark.parametrize(
    ("replaced", "oddity"),
    [
        ({"verify_result": {"score": "high"}}, "result.verify_result.score"),
        ({"verify_result": {"score": True}}, "result.verify_result.score"),
        ({"verify_result": {"score": float("inf")}}, "result.verify_result.score"),
        ({"verify_result": {"score": float("nan")}}, "result.verify_result.score"),
        ({"verify_result": {"score": "1e999"}}, "result.verify_result.score"),
        ({"verify_result": {"score": 10**400}}, "result.verify_result.score"),
        ({"verify_result": 5}, "result.verify_result"),
        ({"verify_result": [{}, {}]}, "result.verify_result"),
        ({"is_demote": "maybe"}, "result.is_demote"),
        ({"is_demote": 2}, "result.is_demote"),
        ({"idcard_images": {"front_base64": "not base64!"}}, "result.idcard_images.front_base64"),
        (
            {"idcard_images": {"front_base64": "data:image/jpeg;base64,AAAA"}},
            "result.idcard_images.front_base64",
        ),
        ({"idcard_images": {"back_base64": 5}}, "result.idcard_images.back_base64"),
        (
            {"idcard_images": {"back_base64": "A" * (14 * 1024 * 1024 + 4)}},
            "result.idcard_images.back_base64",
        ),
        ({"idcard_confirm": {"name": ["张三"]}}, "result.idcard_confirm.name"),
        ({"idcard_confirm": {"name": "x" * 1001}}, "result.idcard_confirm.name"),
        ({"idcard_confirm": {"name": "张\x00三"}}, "result.idcard_confirm.name"),
        ({"idcard_ocr_result": {"name": "\ud800"}}, "result.idcard_ocr_result.name"),
    ],
)
def test_odd_fields_are_noted_by_path_only(replaced: dict[str, Any], oddity: str) -> None:
    result = parse_detail(detail_document(**replaced))

    assert result.oddities == (oddity,)
    assert "张" not in repr(result)


def test_characters_that_databases_refuse_are_removed() -> None:
    document = detail_document(idcard_confirm={"name": " 张\x00\ud800三 ", "idcard_number": 110})
    result = parse_detail(document)
    assert result.confirmed_name == "张三"
    assert result.confirmed_number == "110"


def test_base64_may_have_line_breaks() -> None:
    wrapped = base64.encodebytes(FRONT * 30).decode()
    assert parse_detail(detail_document(idcard_images={"front_base64": wrapped})).front_image == FRONT * 30


def test_personal_data_is_not_printed() -> None:
    text = repr(EXPECTED) + repr(EXPECTED.ocr) + repr(parse_all(ALL)) + repr(parse_media(MEDIA))
    text += repr(parse_simple(SIMPLE)) + repr(parse_all(ALL).attempts)
    for secret in ("张三", "11010519491231002X", "示例路", "front", "bcebos", "verify_token=", "姓名"):
        assert secret not in text


@pytest.mark.parametrize("parse", [parse_detail, parse_simple, parse_all, parse_verify_token])
@pytest.mark.parametrize("result", [None, 1, "x", [], [1], [{}, {}], True, 1.5])
def test_success_without_a_result_is_unreadable(
    parse: Callable[[Mapping[str, Any]], object], result: Any
) -> None:
    with pytest.raises(UnreadableResult):
        parse({"success": True, "result": result})


SIMPLE = {
    "success": True,
    "result": {
        "image": "https://brain.baidu.com/solution/faceprint/image/query?verify_token=Ab3dEf6hIj9kLm2n"
    },
}


def test_simple() -> None:
    assert parse_simple(SIMPLE).face_url == SIMPLE["result"]["image"]  # type: ignore[index]


@pytest.mark.parametrize(
    "image", [5, "aGVsbG8=", "ftp://x/y", "https://x/\ny", "https://x/" + "a" * 5000, {}]
)
def test_simple_without_a_url(image: Any) -> None:
    result = parse_simple({"result": {"image": image}})
    assert result.face_url is None
    assert result.oddities == ("result.image",)


def test_stat_with_keys_in_any_language_and_mixed_types() -> None:
    result = parse_stat(
        {
            "result": {
                "OCR": [{"error_code": 0, "count": 2}, {"error_code": "222202", "count": "1"}],
                "身份证识别": [{"error_code": "0", "count": 1.0}],
                "h5活体视频分析": {"error_code": 0, "count": 3},
                "verify": None,
            }
        }
    )
    assert result.stages == {
        "OCR": (StatCount("0", 2), StatCount("222202", 1)),
        "身份证识别": (StatCount("0", 1),),
        "h5活体视频分析": (StatCount("0", 3),),
        "verify": (),
    }
    assert result.oddities == ()


def test_odd_statistics() -> None:
    result = parse_stat({"result": {"a": [5, {"count": "many"}, {"count": -1}], "k" * 65: [], "b": "x"}})
    assert result.stages == {"a": (), "b": ()}
    assert set(result.oddities) == {
        "result[0][0]",
        "result[0][1].count",
        "result[0][1]",
        "result[0][2].count",
        "result[0][2]",
        "result[1]",
        "result[2][0]",
    }


@pytest.mark.parametrize("result", [None, [], {}, ""])
def test_no_statistics_and_no_media_are_empty(result: Any) -> None:
    assert parse_stat({"result": result}).stages == {}
    assert parse_media({"result": result}) == MediaResult()


MEDIA = {
    "success": True,
    "result": {
        "processVideo": ["http://bj.bcebos.com/v1/example-bucket/s/a.mp4"],
        "video": None,
        "images": ["http://bj.bcebos.com/v1/example-bucket/s/a-00.jpg"],
        "extInfo": None,
    },
    "log_id": "1800000000000000007",
}


def test_media() -> None:
    assert parse_media(MEDIA) == MediaResult(
        process_videos=("http://bj.bcebos.com/v1/example-bucket/s/a.mp4",),
        images=("http://bj.bcebos.com/v1/example-bucket/s/a-00.jpg",),
    )


def test_media_in_other_clothes() -> None:
    result = parse_media(
        {
            "result": {
                "video": "http://bj.bcebos.com/v.mp4",
                "images": ["http://a/1", None, "", 5, "x"],
                "extInfo": "视频处理失败",
            }
        }
    )
    assert result.videos == ("http://bj.bcebos.com/v.mp4",)
    assert result.process_videos == ()
    assert result.images == ("http://a/1",)
    assert result.ext_info == "视频处理失败"
    assert result.oddities == ("result.images",)


def attempt(**replaced: Any) -> dict[str, Any]:
    """One attempt of the sample of API reference 3.8."""
    sample = {
        "order": 1,
        "code": "0",
        "message": "核验成功",
        "is_verify_passed": True,
        "verify_time": "2026-03-02 16:15:01",
        "is_charged": True,
        "charge_type": "verify",
        "charge_time": "2026-03-02 16:15:01",
        "is_ocr_charge": False,
        "ocr_count": 0,
        "ocr_charge_time": None,
        "verify_detail": {
            "score": 84.4,
            "threshold": 80.0,
            "app": False,
            "face_image": "https://bj.bcebos.com/v1/example-bucket/a-00.jpg?authorization=x",
            "verify_log_id": "1775000000000000002",
            "liveness_score": 0.99,
            "spoofing_score": None,
            "risk_level": None,
            "risk_tag": None,
            "is_demote": False,
        },
        "idcard_confirm": {**CONFIRM, "idcard_type": "0", "idcard_ocr_result": OCR, "idcard_images": IMAGES},
    }
    return {**sample, **replaced}


def all_document(*attempts: Any, **counts: Any) -> dict[str, Any]:
    return {
        "success": True,
        "result": {"verify_count": len(attempts), **counts, "verify_result": [*attempts]},
    }


ALL = all_document(
    attempt(order=2),
    attempt(order=1, code="222351", message="身份证姓名不匹配", is_verify_passed=False, is_charged=False),
    verify_charge_count="1",
    ocr_charge_count=0,
)


def test_all_attempts() -> None:
    result = parse_all(ALL)

    assert (result.verify_count, result.verify_charge_count, result.ocr_charge_count) == (2, 1, 0)
    assert result.match_charge_count is None
    assert result.oddities == ()
    failed, passed = result.attempts
    assert (failed.order, failed.passed, failed.code, failed.message) == (
        1,
        False,
        "222351",
        "身份证姓名不匹配",
    )
    assert (passed.order, passed.passed, passed.code, passed.charge_type) == (2, True, "0", "verify")
    assert passed.verify_time == datetime(2026, 3, 2, 8, 15, 1, tzinfo=UTC)
    assert (passed.score, passed.threshold, passed.liveness_score) == (84.4, 80.0, 0.99)
    assert passed.spoofing_score is None
    assert passed.face_url is not None
    assert passed.verify_log_id == "1775000000000000002"
    assert passed.is_demote is False
    assert passed.certificate_type == 0
    assert passed.ocr == EXPECTED.ocr
    assert (passed.front_image, passed.back_image) == (FRONT, BACK)
    assert (passed.confirmed_name, passed.confirmed_number) == ("张三", "11010519491231002X")


def test_ocr_beside_the_confirmation() -> None:
    result = parse_all(
        all_document(attempt(idcard_confirm=CONFIRM, idcard_ocr_result=OCR, idcard_images=IMAGES))
    )
    assert result.attempts[0].ocr == EXPECTED.ocr
    assert result.attempts[0].front_image == FRONT


@pytest.mark.parametrize("orders", [(1, 1), (2, 2), (None, None), (2, None), ("x", 0)])
def test_orders_are_unique_whatever_comes(orders: tuple[Any, Any]) -> None:
    result = parse_all(all_document(*(attempt(order=order) for order in orders)))
    assert [entry.order for entry in result.attempts] == [1, 2]
    assert result.oddities


def test_attempts_that_are_none() -> None:
    result = parse_all(all_document(attempt(), 5, None, "x", []))
    assert len(result.attempts) == 1
    assert result.oddities == tuple(f"result.verify_result[{index}]" for index in (1, 2, 3, 4))
    assert parse_all({"result": {"verify_result": None}}) == AllResult()
    assert parse_all({"result": {"verify_result": attempt()}}).attempts[0].passed is True


def test_attempt_without_a_word_on_its_outcome_has_not_passed() -> None:
    result = parse_all(all_document(attempt(is_verify_passed=None)))
    assert result.attempts[0].passed is None
    assert result.oddities == ("result.verify_result[0].is_verify_passed",)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-03-02 16:15:01", datetime(2026, 3, 2, 8, 15, 1, tzinfo=UTC)),
        ("2023-6-20 18:00:00", datetime(2023, 6, 20, 10, 0, tzinfo=UTC)),
        ("2023-6-20 8:0:0", datetime(2023, 6, 20, 0, 0, tzinfo=UTC)),
        ("2023/06/20 18:00:00", datetime(2023, 6, 20, 10, 0, tzinfo=UTC)),
        (" 2023-06-20T18:00:00.123 ", datetime(2023, 6, 20, 10, 0, tzinfo=UTC)),
        ("2023-06-20T18:00:00Z", datetime(2023, 6, 20, 18, 0, tzinfo=UTC)),
        ("2023-06-20T18:00:00-0130", datetime(2023, 6, 20, 19, 30, tzinfo=UTC)),
        ("2023-06-20T18:00:00+08:00", datetime(2023, 6, 20, 10, 0, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    assert parse_time(text) == time


@pytest.mark.parametrize(
    "value",
    [None, 5, "", "now", "2023-02-30 00:00:00", "2023-06-20", "1999-01-01 00:00:00", "2023-06-20 24:00:00",
     "2023-06-20 18:00:00+99:99", "２０２３-06-20 18:00:00", "2023-06-20 18:00:00" + "0" * 50, []],
)  # fmt: skip
def test_other_texts_are_no_time(value: Any) -> None:
    assert parse_time(value) is None


def test_times_are_beijings() -> None:
    time = parse_time("2026-03-02 16:15:01")
    assert time is not None
    assert time.utcoffset() == timedelta(hours=8)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**310)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["0", "1e5", "2026-03-02 16:15:01", "https://a/b", "AAAA", "true", "", "1" * 30])
)
KEYS = sorted(
    {
        "result", "success", "image", "verify_token", "processVideo", "video", "images", "extInfo",
        *detail_document()["result"], *OCR, *IMAGES, *CONFIRM, "score", "liveness_score", "spoofing",
        *attempt(), *attempt()["verify_detail"], "idcard_type", "verify_result", "verify_count", "count",
        "error_code",
    }
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=5), inner, max_size=6)
    ),
    max_leaves=25,
)


def all_floats(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    if is_dataclass(value):
        return [number for part in fields(value) for number in all_floats(getattr(value, part.name))]
    if isinstance(value, tuple):
        return [number for part in value for number in all_floats(part)]
    return []


@pytest.mark.parametrize(
    "parse", [parse_detail, parse_simple, parse_stat, parse_media, parse_all, parse_verify_token]
)
@given(result=values)
def test_anything_is_read_or_unreadable(parse: Callable[[Mapping[str, Any]], Any], result: Any) -> None:
    try:
        parsed = parse({"success": True, "result": result})
    except UnreadableResult:
        return
    assert all(math.isfinite(number) for number in all_floats(parsed))
    if parse is not parse_verify_token:
        assert all(isinstance(path, str) for path in parsed.oddities)


@given(st.dictionaries(st.sampled_from(sorted(attempt()["verify_detail"])), scalars), values)
def test_odd_attempts_are_read(detail: dict[str, Any], other: Any) -> None:
    document = all_document(attempt(verify_detail=detail), attempt(order=other, idcard_confirm=other), other)
    result = parse_all(document)
    assert len({entry.order for entry in result.attempts}) == len(result.attempts)
    json.dumps(result.oddities)
