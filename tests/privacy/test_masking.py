from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_faceprint.privacy.masking import is_masked, mask_address, mask_name, mask_number


@pytest.mark.parametrize(
    ("name", "masked"),
    [
        ("", ""),
        ("柴", "*"),
        ("柴某", "柴*"),
        ("欧阳娜娜", "欧***"),
        ("买买提·艾力", "买*****"),
        (" 张三 ", "张*"),
        ("John Smith", "J*********"),
        ("E\u0301ric", "É***"),
        ("𠮷田", "𠮷*"),
    ],
)
def test_names(name: str, masked: str) -> None:
    assert mask_name(name) == masked


@pytest.mark.parametrize(
    ("number", "masked"),
    [
        ("", ""),
        ("11010519491231002X", "110***********002X"),
        ("110105491231002", "110********1002"),
        ("H1234567890", "*" * 11),
        ("E12345678", "*" * 9),
        ("12345678901234", "123*******1234"),
    ],
)
def test_numbers(number: str, masked: str) -> None:
    assert mask_number(number) == masked
    assert len(mask_number(number)) == len(number)


@pytest.mark.parametrize(
    ("address", "masked"),
    [
        ("", ""),
        ("浙江省杭州市西湖区文三路1号", "浙江省****"),
        ("浙江杭州", "浙江省****"),
        ("北京市朝阳区", "北京市****"),
        ("广西南宁市", "广西壮族自治区****"),
        ("新疆维吾尔自治区喀什地区", "新疆维吾尔自治区****"),
        ("香港九龍", "香港特别行政区****"),
        ("杭州市西湖区", "****"),
        ("1 Example Road", "****"),
    ],
)
def test_addresses(address: str, masked: str) -> None:
    assert mask_address(address) == masked


@given(st.text(min_size=1).filter(lambda text: text.strip() and not is_masked(text)))
def test_masks_are_recognised_and_hide_at_least_half_of_a_number(text: str) -> None:
    assert is_masked(mask_name(text))
    assert is_masked(mask_number(text))
    assert is_masked(mask_address(text))
    assert mask_number(text).count("*") * 2 >= len(mask_number(text))


def test_plain_values_are_not_masked() -> None:
    assert not is_masked("11010519491231002X")
    assert not is_masked("")
    assert is_masked("张＊")
