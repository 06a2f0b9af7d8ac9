"""Made-up people: no region of China has an ID number that begins with 99."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

SURNAMES = (
    "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
    "苏卢蒋蔡贾丁魏薛叶阎余潘杜戴夏钟汪田任姜范方石姚谭廖邹熊金陆郝孔白崔康毛邱秦江"
    "史顾侯邵孟龙万段雷钱汤尹黎易常武乔贺赖龚文"
)
GIVEN = (
    "伟芳娜敏静丽强磊军洋勇艳杰娟涛明超秀霞平刚桂英华玉兰红建国文志海波宁云欣怡"
    "梓涵浩宇轩博雅思远佳琪子墨晨曦若彤一诺"
)
CHECK_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
CHECK_DIGITS = "10X98765432"


@dataclass(frozen=True)
class Person:
    """Somebody who does not exist."""

    name: str
    number: str
    certificate_type: int
    born: date

    @property
    def is_child(self) -> bool:
        """Under 14, and so in need of a guardian's consent."""
        return self.born.year > 2015


def person(number: int, seed: int) -> Person:
    """The person with that number: always the same one, and no two with the same ID number."""
    mixed = (number * 2_654_435_761 + seed * 40_503) % (1 << 32)
    born = date(1950, 1, 1) + timedelta(days=mixed % 20_800)
    if mixed % 500 == 7:
        born = date(2016, 1, 1) + timedelta(days=mixed % 700)
    name = SURNAMES[mixed % len(SURNAMES)] + GIVEN[mixed // 128 % len(GIVEN)]
    if mixed // 8192 % 4:
        name += GIVEN[mixed // 32768 % len(GIVEN)]
    match mixed // 1024 % 50:
        case 1:
            return Person(name, f"H{number:010d}", 1, born)
        case 2:
            return Person(f"ANNA {chr(65 + mixed % 26)}{name}", f"ZZZ99{number:010d}", 2, born)
        case 3:
            return Person(name, f"E{number:08d}", 3, born)
    body = f"99{number % 10_000:04d}{born:%Y%m%d}{number // 10_000 % 1_000:03d}"
    check = sum(int(digit) * weight for digit, weight in zip(body, CHECK_WEIGHTS, strict=True)) % 11
    return Person(name, body + CHECK_DIGITS[check], 0, born)
