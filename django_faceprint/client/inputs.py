"""Checks of all inputs of callers, before anything is sent (API reference 3.1–3.3).

A refusal is an :class:`~django_faceprint.exceptions.InvalidInput` that names the field and the rule and
never repeats the value. :data:`MESSAGES` holds the texts, to be translated where they are shown.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal, Self, cast

from PIL import Image, ImageOps, UnidentifiedImageError

from ..exceptions import InvalidInput, replace_exceptions
from .codes import gettext_noop

MAX_NAME = 50
#: Of the base64 text (API reference 3.3); "10 MB", read the stricter way.
MAX_IMAGE_BASE64 = 10_000_000
#: Of the file when scaling down is allowed.
MAX_SOURCE_BYTES = 32 * 1024 * 1024
MAX_SOURCE_PIXELS = 50_000_000
#: Resolution must be *below* 1920×1080, in either orientation (API reference 3.3).
LONG_SIDE = 1920
SHORT_SIDE = 1080

MAINLAND_ID, TRAVEL_PERMIT, FOREIGN_RESIDENT, PASSPORT, RESIDENCE_PERMIT = range(5)
CERTIFICATE_TYPES: Final = (MAINLAND_ID, TRAVEL_PERMIT, FOREIGN_RESIDENT, PASSPORT, RESIDENCE_PERMIT)

Control = Literal["NONE", "LOW", "NORMAL", "HIGH"]
CONTROLS: Final[tuple[Control, ...]] = ("NONE", "LOW", "NORMAL", "HIGH")

#: Rule → English text with ``%(name)s`` placeholders, which ``InvalidInput.params`` fills.
MESSAGES: Final[Mapping[str, str]] = {
    "required": gettext_noop("This value is required."),
    "type": gettext_noop("This value has the wrong type."),
    "name_length": gettext_noop("A name has at most %(limit)d characters."),
    "name_characters": gettext_noop("The name holds characters that no name can have."),
    "certificate_type": gettext_noop("The certificate type must be one of 0, 1, 2, 3 and 4."),
    "number_format": gettext_noop("The number does not have the form of this certificate type."),
    "number_date": gettext_noop("The number holds no possible date of birth."),
    "number_checksum": gettext_noop(
        "The check digit of the number is wrong: please look for a typing error."
    ),
    "number_residence_permit": gettext_noop(
        "This is the number of a residence permit for Hong Kong, Macao and Taiwan residents: use "
        "certificate type 4."
    ),
    "plan_id": gettext_noop("A plan ID (方案ID) has 1 to 20 digits."),
    "token_format": gettext_noop("This is no verification token."),
    "url": gettext_noop("This must be a complete http or https address of at most 2000 characters."),
    "control": gettext_noop("The level must be NONE, LOW, NORMAL or HIGH."),
    "image_format": gettext_noop("The picture must be a PNG, JPEG or BMP file."),
    "image_damaged": gettext_noop("The picture is damaged or incomplete."),
    "image_size": gettext_noop("The picture file is too large: at most %(limit)d bytes."),
    "image_pixels": gettext_noop(
        "The picture must be smaller than %(long)d×%(short)d pixels, in either orientation."
    ),
}


def invalid(name: str, code: str, **params: Any) -> InvalidInput:
    """The refusal of the input ``name`` under the rule ``code`` of :data:`MESSAGES`."""
    return InvalidInput(name, code, f"{name}: {MESSAGES[code] % params}", params)


@dataclass(frozen=True)
class Identity:
    """Who must appear: name and certificate (API reference 3.2). Neither is shown in ``repr``.

    ``certificate_type``: 0 resident identity card, 1 mainland travel permit for Hong Kong, Macao and Taiwan
    residents, 2 permanent residence of foreigners, 3 passport of Chinese citizens abroad, 4 residence
    permit for Hong Kong, Macao and Taiwan residents.
    """

    name: str = field(repr=False)
    number: str = field(repr=False)
    certificate_type: int = MAINLAND_ID

    @classmethod
    def checked(
        cls,
        name: str,
        number: str,
        certificate_type: int = MAINLAND_ID,
        *,
        strict: bool = True,
        today: date | None = None,
    ) -> Self:
        """Normalise and check. Raises :class:`InvalidInput` for ``name``, ``number`` or ``certificate_type``.

        ``strict=False`` leaves out date, check digit and the hint at the wrong certificate type, and
        still demands the shape. ``today`` bounds the date of birth (default: today in Beijing).
        """
        if isinstance(certificate_type, bool) or certificate_type not in CERTIFICATE_TYPES:
            raise invalid("certificate_type", "certificate_type")
        return cls(
            checked_name(name),
            checked_number(number, certificate_type, strict=strict, today=today),
            int(certificate_type),
        )


# Name characters. A closed list by category, as wide as real names: letters, marks, letter-like numerals
# (〇 is one), and the private-use characters that stand for rare Chinese characters in official records.
_NAME_CATEGORIES: Final = frozenset({"Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Nl", "Co"})
_NAME_PUNCTUATION: Final = frozenset(" ·-'’.,")
_MIDDLE_DOTS: Final = str.maketrans(dict.fromkeys("•‧∙⋅・･", "·"))
# Full-width ASCII only: full compatibility normalisation would replace rare ideographs by other ones.
_FULL_WIDTH: Final = str.maketrans({code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " "})


def checked_name(name: str) -> str:
    """A person's name, normalised: 1–50 characters, Chinese or Latin, no digits and no control characters."""
    if not isinstance(name, str):
        raise invalid("name", "type")
    text = name.translate(_FULL_WIDTH).translate(_MIDDLE_DOTS)
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text.strip()):
        raise invalid("name", "name_characters")
    text = " ".join(text.split())
    if not text:
        raise invalid("name", "required")
    if len(text) > MAX_NAME:
        raise invalid("name", "name_length", limit=MAX_NAME)
    is_letter = [unicodedata.category(char) in _NAME_CATEGORIES for char in text]
    if not is_letter[0] or not all(
        letter or char in _NAME_PUNCTUATION for char, letter in zip(text, is_letter, strict=True)
    ):
        raise invalid("name", "name_characters")
    return text


_SHAPES: Final[Mapping[int, re.Pattern[str]]] = {
    # Region (1–8), date of birth, sequence, check digit: GB 11643.
    MAINLAND_ID: re.compile(r"[1-8][0-9]{16}[0-9X]"),
    # Hong Kong (H) and Macao (M), with or without the two digits of re-issue; Taiwan: 8 digits, or 10
    # and a letter.
    TRAVEL_PERMIT: re.compile(r"[HM][0-9]{8}(?:[0-9]{2})?|[0-9]{8}(?:[0-9]{2}[A-Z]?)?"),
    # Cards before 2023: 3 letters and 12 digits. Since then: 18 places beginning with 9.
    FOREIGN_RESIDENT: re.compile(r"[A-Z]{3}[0-9]{12}|9[0-9]{16}[0-9X]"),
    PASSPORT: re.compile(r"[A-Z]{1,2}[0-9]{7,8}|[0-9]{9}"),
    RESIDENCE_PERMIT: re.compile(r"8[123]0000[0-9]{11}[0-9X]"),
}
_EIGHTEEN: Final = re.compile(r"[0-9]{17}[0-9X]")
_WEIGHTS: Final = tuple(pow(2, 17 - position, 11) for position in range(17))


def checked_number(
    number: str, certificate_type: int, *, strict: bool = True, today: date | None = None
) -> str:
    """A certificate number, normalised to half-width capitals; see :meth:`Identity.checked`."""
    if not isinstance(number, str):
        raise invalid("number", "type")
    text = unicodedata.normalize("NFKC", number).strip().upper()
    if not text:
        raise invalid("number", "required")
    if not _SHAPES[certificate_type].fullmatch(text):
        raise invalid("number", "number_format")
    if not strict or not _EIGHTEEN.fullmatch(text):
        return text
    if certificate_type == MAINLAND_ID and _SHAPES[RESIDENCE_PERMIT].fullmatch(text):
        raise invalid("number", "number_residence_permit")
    if not _is_date_of_birth(text[6:14], today if today is not None else _today_in_beijing()):
        raise invalid("number", "number_date")
    if check_digit(text[:17]) != text[17]:
        raise invalid("number", "number_checksum")
    return text


def check_digit(first_seventeen: str) -> str:
    """The 18th place of an identity number: ISO 7064 MOD 11-2, with X for ten."""
    total = sum(int(digit) * weight for digit, weight in zip(first_seventeen, _WEIGHTS, strict=True))
    return "0123456789X"[(12 - total % 11) % 11]


def _is_date_of_birth(digits: str, today: date) -> bool:
    try:
        born = date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return date(1900, 1, 1) <= born <= today


def _today_in_beijing() -> date:
    return (datetime.now(UTC) + timedelta(hours=8)).date()


def checked_plan_id(value: str | int) -> str:
    """A plan ID (方案ID) as text: 1–20 digits. Raises :class:`InvalidInput` for ``plan_id``."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise invalid("plan_id", "type")
    if isinstance(value, int):
        if not 0 <= value < 10**20:
            raise invalid("plan_id", "plan_id")
        return str(value)
    text = unicodedata.normalize("NFKC", value).strip()
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise invalid("plan_id", "plan_id")
    return text


@dataclass(frozen=True)
class MatchImage:
    """A picture to compare with (API reference 3.3). The bytes are not shown in ``repr``.

    ``width`` and ``height`` are pixels as stored; ``format`` is ``JPEG``, ``PNG`` or ``BMP``.
    """

    data: bytes = field(repr=False)
    format: str
    width: int
    height: int
    quality_control: Control = "NONE"
    liveness_control: Control = "NONE"

    @property
    def content_type(self) -> str:
        """The media type of the bytes."""
        return f"image/{self.format.lower()}"

    @classmethod
    def checked(
        cls,
        data: bytes,
        *,
        quality_control: str = "NONE",
        liveness_control: str = "NONE",
        scale_down: bool = False,
    ) -> Self:
        """Decode the picture whole and check it. Raises :class:`InvalidInput` for ``image`` and the controls.

        PNG, JPEG or BMP; at most 10 MB as base64; below 1920×1080 in either orientation. A picture that
        fits is sent byte by byte as given. With ``scale_down`` one that is too large (up to 32 MiB and 50
        million pixels) is made smaller: upright, without metadata, as PNG if it was one, else as JPEG.
        """
        quality = _checked_control("quality_control", quality_control)
        liveness = _checked_control("liveness_control", liveness_control)
        if not isinstance(data, bytes | bytearray | memoryview):
            raise invalid("image", "type")
        content = bytes(data)
        if not content:
            raise invalid("image", "required")
        byte_limit = MAX_SOURCE_BYTES if scale_down else MAX_IMAGE_BASE64 // 4 * 3
        if len(content) > byte_limit:
            raise invalid("image", "image_size", limit=byte_limit)
        picture = _decode(content, scale_down=scale_down)
        name = picture.format or ""
        if _is_small_enough(picture.width, picture.height) and _fits(content):
            return cls(content, _FORMATS[name], picture.width, picture.height, quality, liveness)
        # Broken EXIF blocks and profiles fail in as many ways as files.
        with replace_exceptions(Exception, by=_refusal):
            content, written, size = _scaled(picture, as_png=name == "PNG")
        return cls(content, written, *size, quality, liveness)


#: Pillow's name of a format → ours. Many phones write a JPEG with a second picture (MPO).
_FORMATS: Final[Mapping[str, str]] = {"JPEG": "JPEG", "MPO": "JPEG", "PNG": "PNG", "BMP": "BMP"}
_OPENERS: Final = ("JPEG", "PNG", "BMP")


def _checked_control(name: str, value: str) -> Control:
    if not isinstance(value, str) or value.strip().upper() not in CONTROLS:
        raise invalid(name, "control")
    return cast(Control, value.strip().upper())


def _is_small_enough(width: int, height: int) -> bool:
    return max(width, height) < LONG_SIDE and min(width, height) < SHORT_SIDE


def _fits(content: bytes) -> bool:
    return (len(content) + 2) // 3 * 4 <= MAX_IMAGE_BASE64


def _decode(content: bytes, *, scale_down: bool) -> Image.Image:
    """The picture, decoded whole. Raises :class:`InvalidInput` for ``image``."""
    # Pillow's plugins raise nearly anything for broken files.
    with replace_exceptions(Exception, by=_refusal):
        with Image.open(io.BytesIO(content), formats=_OPENERS) as header:
            # Only the header has been read so far: the size is known before memory is spent on it.
            if header.format not in _FORMATS:
                raise invalid("image", "image_format")
            too_large = header.width * header.height > MAX_SOURCE_PIXELS
            if too_large or not (scale_down or _is_small_enough(header.width, header.height)):
                raise _too_many_pixels()
            header.verify()
        # verify() does not decode the picture and leaves it unusable, so it is opened again.
        picture = Image.open(io.BytesIO(content), formats=_OPENERS)
        picture.load()
        return picture


def _refusal(error: Exception) -> InvalidInput | None:
    """The refusal of a picture that *error* was raised for; None: *error* is one."""
    if isinstance(error, InvalidInput):
        return None
    if isinstance(error, UnidentifiedImageError):
        return invalid("image", "image_format")
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return _too_many_pixels()
    return invalid("image", "image_damaged")


def _too_many_pixels() -> InvalidInput:
    return invalid("image", "image_pixels", long=LONG_SIDE, short=SHORT_SIDE)


def _scaled(picture: Image.Image, *, as_png: bool) -> tuple[bytes, str, tuple[int, int]]:
    upright = ImageOps.exif_transpose(picture)
    long, short = max(upright.size), min(upright.size)
    factor = min(1.0, (LONG_SIDE - 1) / long, (SHORT_SIDE - 1) / short)
    size = (max(1, int(upright.width * factor)), max(1, int(upright.height * factor)))
    if as_png:
        mode = "RGBA" if "A" in upright.getbands() or "transparency" in upright.info else "RGB"
        content = _encoded(upright.convert(mode).resize(size, Image.Resampling.LANCZOS), "PNG")
        if _fits(content):
            return content, "PNG", size
    content = _encoded(upright.convert("RGB").resize(size, Image.Resampling.LANCZOS), "JPEG", quality=92)
    return content, "JPEG", size


def _encoded(picture: Image.Image, name: str, **options: Any) -> bytes:
    # A fresh picture carries neither EXIF (position, device) nor comments nor profiles.
    clean = Image.new(picture.mode, picture.size)
    clean.paste(picture)
    target = io.BytesIO()
    clean.save(target, name, **options)
    return target.getvalue()
