"""Checks before anything is sent."""

from __future__ import annotations

import base64
import io
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from django_faceprint.client import MESSAGES, Identity, MatchImage, checked_plan_id
from django_faceprint.client.inputs import check_digit
from django_faceprint.exceptions import InvalidInput

TODAY = date(2026, 3, 2)


def checked(number: str, kind: int = 0, *, name: str = "张三", strict: bool = True) -> Identity:
    return Identity.checked(name, number, kind, strict=strict, today=TODAY)


def complete(seventeen: str) -> str:
    return seventeen + check_digit(seventeen)


def refusal(number: Any, kind: Any = 0, *, name: Any = "张三", strict: bool = True) -> tuple[str, str]:
    with pytest.raises(InvalidInput) as caught:
        checked(number, kind, name=name, strict=strict)
    assert caught.value.code in MESSAGES
    assert str(caught.value) == f"{caught.value.field}: {MESSAGES[caught.value.code] % caught.value.params}"
    return caught.value.field, caught.value.code


@pytest.mark.parametrize(
    "written", ["11010519491231002X", "11010519491231002x", " １１０１０５１９４９１２３１００２Ｘ\n"]
)
def test_national_standards_example(written: str) -> None:
    assert checked(written) == Identity("张三", "11010519491231002X", 0)


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("", "required"),
        ("   ", "required"),
        ("1101051949123100", "number_format"),
        ("110105194912310029", "number_checksum"),
        ("11010519491231002A", "number_format"),
        ("1101051949123100２２X", "number_format"),
        ("01010519491231002X", "number_format"),
        ("110105491231002", "number_format"),
        ("١١٠١٠٥١٩٤٩١٢٣١٠٠٢X", "number_format"),
        (complete("11010519490231002"), "number_date"),
        (complete("11010519491331002"), "number_date"),
        (complete("11010518991231002"), "number_date"),
        (complete("11010520260303002"), "number_date"),
        (complete("11010520990101002"), "number_date"),
        (complete("81000019491231002"), "number_residence_permit"),
        (complete("91010519491231002"), "number_format"),
        (None, "type"),
        (110105194912310021, "type"),
    ],
)
def test_wrong_resident_numbers(number: Any, code: str) -> None:
    assert refusal(number) == ("number", code)


def test_child_born_today() -> None:
    number = complete("11010520260302002")
    assert checked(number).number == number


@pytest.mark.parametrize("region", ["340524", "710101", "659004"])
def test_there_is_no_list_of_regions_to_be_outdated(region: str) -> None:
    number = complete(f"{region}19800229001")
    assert checked(number).number == number


@pytest.mark.parametrize(
    "number", ["110105194912310029", "11010519490231002X", complete("81000019491231002")]
)
def test_lenient_check_still_demands_the_shape(number: str) -> None:
    assert checked(number, strict=False).number == number
    assert refusal(number[:-1], strict=False) == ("number", "number_format")


@pytest.mark.parametrize("prefix", ["810000", "820000", "830000"])
def test_residence_permit(prefix: str) -> None:
    number = complete(f"{prefix}19900101001")
    assert checked(number, 4).number == number
    assert refusal(number[:-1] + ("0" if number[-1] != "0" else "1"), 4) == ("number", "number_checksum")
    assert refusal(complete(f"{prefix}19901301001"), 4) == ("number", "number_date")


@pytest.mark.parametrize(
    "number", ["11010519491231002X", complete("84000019900101001"), complete("81010119900101001")]
)
def test_no_residence_permit(number: str) -> None:
    assert refusal(number, 4) == ("number", "number_format")
    assert refusal(number, 4, strict=False) == ("number", "number_format")


@pytest.mark.parametrize("number", ["usa110080010101", "USA110080010101", complete("91184019900101001")])
def test_permanent_residence_of_foreigners(number: str) -> None:
    assert checked(number, 2).number == number.upper()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("US1100800101011", "number_format"),
        ("USA11008001010", "number_format"),
        ("USA1100800101011", "number_format"),
        (complete("81184019900101001"), "number_format"),
        (complete("91184019900231001"), "number_date"),
        ("911840199001010011", "number_checksum"),
    ],
)
def test_wrong_permanent_residence(number: str, code: str) -> None:
    assert refusal(number, 2) == ("number", code)


@pytest.mark.parametrize(
    "number", ["H12345678", "h1234567801", "M12345678", "12345678", "1234567801", "1234567801B"]
)
def test_travel_permit(number: str) -> None:
    assert checked(number, 1).number == number.upper()


@pytest.mark.parametrize(
    "number", ["H1234567", "H123456789", "X12345678", "1234567", "123456789", "H12345678A"]
)
def test_no_travel_permit(number: str) -> None:
    assert refusal(number, 1) == ("number", "number_format")


@pytest.mark.parametrize("number", ["E12345678", "ea1234567", "G12345678", "141234567"])
def test_passport(number: str) -> None:
    assert checked(number, 3).number == number.upper()


@pytest.mark.parametrize("number", ["12345678", "EAB123456", "E-1234567", "E1234567890", "张12345678"])
def test_no_passport(number: str) -> None:
    assert refusal(number, 3) == ("number", "number_format")


@pytest.mark.parametrize("kind", [5, -1, "0", None, True, 1.5, [], {}])
def test_certificate_type(kind: Any) -> None:
    assert refusal("11010519491231002X", kind) == ("certificate_type", "certificate_type")


digits = st.text(alphabet="0123456789", min_size=17, max_size=17)


@given(digits, st.integers(0, 16), st.integers(1, 9))
def test_check_digit_finds_every_single_mistake(first: str, position: int, step: int) -> None:
    mistaken = str((int(first[position]) + step) % 10)
    assert check_digit(first[:position] + mistaken + first[position + 1 :]) != check_digit(first)


@given(digits, st.integers(0, 15))
def test_check_digit_finds_every_swap_of_neighbours(first: str, position: int) -> None:
    swapped = first[:position] + first[position + 1] + first[position] + first[position + 2 :]
    assert swapped == first or check_digit(swapped) != check_digit(first)


@given(st.text(max_size=30), st.integers(0, 4), st.booleans())
def test_any_number_is_accepted_or_refused(number: str, kind: int, strict: bool) -> None:
    try:
        accepted = checked(number, kind, strict=strict).number
    except InvalidInput as error:
        assert error.field == "number"  # noqa: PT017
    else:
        assert accepted.isascii()
        assert checked(accepted, kind, strict=strict).number == accepted


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("张三", "张三"),
        ("  张三\n", "张三"),
        ("买买提·吐尔逊", "买买提·吐尔逊"),
        ("买买提•吐尔逊", "买买提·吐尔逊"),
        ("买买提・吐尔逊", "买买提·吐尔逊"),
        ("John  Smith", "John Smith"),
        ("O'Brien-Müller, J.", "O'Brien-Müller, J."),
        ("Ｊｏｈｎ　Ｓｍｉｔｈ", "John Smith"),
        ("〇", "〇"),
        ("王\U00020bb7", "王\U00020bb7"),
        ("王\ue863", "王\ue863"),
        ("王﨑", "王﨑"),
        ("阿" * 50, "阿" * 50),
    ],
)
def test_names(written: str, name: str) -> None:
    assert checked("11010519491231002X", name=written).name == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "required"),
        (" \t", "required"),
        ("阿" * 51, "name_length"),
        ("张\n三", "name_characters"),
        ("张\x00三", "name_characters"),
        ("张\u202e三", "name_characters"),
        ("张\u200b三", "name_characters"),
        ("张\ud800", "name_characters"),
        ("张三1", "name_characters"),
        ("张三１", "name_characters"),
        ("11010519491231002X", "name_characters"),
        ("·张", "name_characters"),
        ("<b>张", "name_characters"),
        ("张@三", "name_characters"),
        ("张😀", "name_characters"),
        (None, "type"),
        (5, "type"),
    ],
)
def test_wrong_names(name: Any, code: str) -> None:
    assert refusal("11010519491231002X", name=name) == ("name", code)


@given(st.text(max_size=60))
def test_any_name_is_accepted_or_refused(name: str) -> None:
    try:
        accepted = checked("11010519491231002X", name=name).name
    except InvalidInput as error:
        assert error.field == "name"  # noqa: PT017
    else:
        assert 1 <= len(accepted) <= 50
        accepted.encode()
        assert checked("11010519491231002X", name=accepted).name == accepted


@pytest.mark.parametrize(
    ("value", "plan_id"),
    [("25001", "25001"), (25001, "25001"), (" ２５ ", "25"), ("0", "0"), ("9" * 20, "9" * 20)],
)
def test_plan_id(value: Any, plan_id: str) -> None:
    assert checked_plan_id(value) == plan_id


@pytest.mark.parametrize("value", ["", "x", "1 2", "-1", -1, "9" * 21, 10**20, True, None, 1.0, "1.0", b"1"])
def test_wrong_plan_id(value: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked_plan_id(value)
    assert caught.value.field == "plan_id"


def picture(
    width: int = 40, height: int = 30, name: str = "JPEG", mode: str = "RGB", **options: Any
) -> bytes:
    target = io.BytesIO()
    Image.effect_noise((width, height), 60).convert(mode).save(target, name, **options)
    return target.getvalue()


def image_refusal(data: Any, **options: Any) -> str:
    with pytest.raises(InvalidInput) as caught:
        MatchImage.checked(data, **options)
    assert caught.value.field == "image"
    return caught.value.code


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP"])
def test_picture_that_fits_is_sent_as_it_is(name: str) -> None:
    data = picture(name=name)
    image = MatchImage.checked(data, scale_down=True)
    assert (image.data, image.format, image.width, image.height) == (data, name, 40, 30)
    assert image.content_type == f"image/{name.lower()}"
    assert (image.quality_control, image.liveness_control) == ("NONE", "NONE")


@pytest.mark.parametrize("name", ["GIF", "WEBP", "TIFF"])
def test_other_formats_are_refused(name: str) -> None:
    assert image_refusal(picture(name=name)) == "image_format"


@pytest.mark.parametrize("data", [b"text", b"<html></html>", b"GIF89a<script>", b"\x00" * 100, b"%PDF-1.7"])
def test_other_files_are_refused(data: bytes) -> None:
    assert image_refusal(data) == "image_format"


@pytest.mark.parametrize("data", [b"", None, "text", 5])
def test_no_picture(data: Any) -> None:
    assert image_refusal(data) in ("required", "type")


@pytest.mark.parametrize("name", ["JPEG", "PNG", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_truncated_pictures_are_refused(name: str, share: float) -> None:
    data = picture(200, 150, name)
    assert image_refusal(data[: int(len(data) * share)]) == "image_damaged"


def test_picture_with_a_flipped_bit_in_its_check_sum_is_refused() -> None:
    data = bytearray(picture(name="PNG"))
    data[len(data) // 2] ^= 1
    assert image_refusal(bytes(data)) == "image_damaged"


@given(st.binary(max_size=200), st.integers(0, 600), st.sampled_from(["JPEG", "PNG", "BMP"]))
def test_damaged_pictures_never_raise_anything_else(noise: bytes, position: int, name: str) -> None:
    data = SAMPLES[name]
    damaged = data[:position] + noise + data[position + len(noise) :]
    for scale_down in (False, True):
        try:
            MatchImage.checked(damaged, scale_down=scale_down)
        except InvalidInput as error:
            assert error.field == "image"  # noqa: PT017


SAMPLES = {name: picture(16, 12, name) for name in ("JPEG", "PNG", "BMP")}


@pytest.mark.parametrize(("width", "height"), [(1919, 1079), (1079, 1919), (1079, 1079), (1, 1919)])
def test_largest_pictures(width: int, height: int) -> None:
    assert MatchImage.checked(picture(width, height, "PNG", "1")).width == width


@pytest.mark.parametrize(
    ("width", "height"), [(1920, 1079), (1919, 1080), (1080, 1919), (1079, 1920), (1100, 1100), (4000, 3000)]
)
def test_too_many_pixels(width: int, height: int) -> None:
    data = picture(width, height, "PNG", "1")
    assert image_refusal(data) == "image_pixels"

    image = MatchImage.checked(data, scale_down=True)

    assert max(image.width, image.height) < 1920
    assert min(image.width, image.height) < 1080
    assert abs(image.width / image.height - width / height) < 0.01
    with Image.open(io.BytesIO(image.data)) as scaled:
        assert scaled.size == (image.width, image.height)
        assert scaled.format == image.format == "PNG"


@pytest.mark.parametrize("scale_down", [False, True])
def test_decompression_bombs_are_refused_before_decoding(scale_down: bool) -> None:
    target = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(target, "PNG")
    assert image_refusal(target.getvalue(), scale_down=scale_down) == "image_pixels"
    target = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(target, "PNG")
    assert image_refusal(target.getvalue(), scale_down=scale_down) == "image_pixels"


def test_scaled_picture_is_upright_and_without_metadata() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    exif[0x010F] = "Maker of a device"
    data = picture(2000, 1000, exif=exif, comment=b"position")

    image = MatchImage.checked(data, scale_down=True)

    assert image.height > image.width
    assert image.format == "JPEG"
    assert b"Maker" not in image.data
    assert b"position" not in image.data
    with Image.open(io.BytesIO(image.data)) as scaled:
        assert not scaled.getexif()


@pytest.mark.parametrize(
    ("mode", "name"), [("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("L", "JPEG"), ("P", "BMP")]
)
def test_every_colour_mode_can_be_scaled(mode: str, name: str) -> None:
    image = MatchImage.checked(picture(2000, 1000, name, mode), scale_down=True)
    assert image.format == ("PNG" if name == "PNG" else "JPEG")


def test_size_of_the_base64_text_is_bounded() -> None:
    data = picture(name="BMP") + b"\x00" * 7_500_001
    assert image_refusal(data) == "image_size"
    image = MatchImage.checked(data, scale_down=True)
    assert len(base64.b64encode(image.data)) <= 10_000_000
    assert image_refusal(data + b"\x00" * 32 * 1024 * 1024, scale_down=True) == "image_size"


@pytest.mark.parametrize("field", ["quality_control", "liveness_control"])
def test_controls(field: str) -> None:
    for level in ("NONE", "LOW", "NORMAL", "HIGH", "high"):
        assert getattr(MatchImage.checked(picture(), **{field: level}), field) == level.upper()  # type: ignore[arg-type]
    wrong: Any
    for wrong in ("", "STRICT", None, 1):
        with pytest.raises(InvalidInput) as caught:
            MatchImage.checked(picture(), **{field: wrong})
        assert (caught.value.field, caught.value.code) == (field, "control")
