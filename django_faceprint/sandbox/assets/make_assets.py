"""Makes the two videos and the two cards of this folder. See ``README.md`` beside this file.

Needs ffmpeg with libx264 and the font Noto Sans CJK; the sandbox does not run this.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from django_faceprint.sandbox.media import CARD, SAMPLE_NUMBER, draw_card_photo, draw_face

HERE = Path(__file__).parent
FONT = "/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc"
BOLD = "/usr/share/fonts/opentype/noto/NotoSansCJK-Bold.ttc"
FRAMES, RATE, SIZE = 90, 15, (320, 240)
SMALL_FRAMES, SMALL_SIZE = 15, (96, 96)
FFMPEG = (
    "ffmpeg -y -loglevel error -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r 15 -i - -an -c:v libx264 "
    "-profile:v baseline -level 3.0 -pix_fmt yuv420p -g 15 -crf 30 -map_metadata -1 "
    "-fflags +bitexact -flags:v +bitexact -movflags +faststart"
)


def clip() -> None:
    """Six seconds of a drawn face that turns its head and blinks."""
    frames = []
    for number in range(FRAMES):
        angle = 2 * math.pi * number / FRAMES
        centre = (160 + 10 * math.sin(angle), 104)
        picture = face(SIZE, centre, 62, turn=math.sin(2 * angle), blink=number % 30 < 3)
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 222, 320 * (number + 1) // FRAMES, 228), fill=(36, 104, 242))
        draw.text(
            (8, 6), f"SANDBOX  {number / RATE:4.1f} s", fill=(30, 40, 60), font=ImageFont.load_default(14)
        )
        frames.append(picture.tobytes())
    encode(frames, SIZE, "face.mp4")


def small_clip() -> None:
    """One second of the same face at 96 × 96 pixels."""
    frames = []
    for number in range(SMALL_FRAMES):
        angle = 2 * math.pi * number / SMALL_FRAMES
        centre = (48 + 3 * math.sin(angle), 41)
        picture = face(SMALL_SIZE, centre, 25, turn=math.sin(angle), blink=number < 2)
        frames.append(picture.tobytes())
    encode(frames, SMALL_SIZE, "face_small.mp4")


def face(
    size: tuple[int, int], centre: tuple[float, float], radius: int, *, turn: float, blink: bool
) -> Image.Image:
    """One frame of the clips."""
    picture = Image.new("RGB", size, (196, 214, 228))
    draw_face(picture, centre, radius, b"\x00\x01\x60\x71", turn=turn, blink=blink)
    return picture


def encode(frames: list[bytes], size: tuple[int, int], name: str) -> None:
    """Write raw RGB frames as a video."""
    command = FFMPEG.format(width=size[0], height=size[1]).split()
    subprocess.run([*command, str(HERE / name)], input=b"".join(frames), check=True)


def cards() -> None:
    """Two mock cards, marked as samples."""
    text, big, mark = ImageFont.truetype(FONT, 26), ImageFont.truetype(BOLD, 44), ImageFont.truetype(BOLD, 96)
    for side in ("front", "back"):
        card = Image.new("RGB", CARD, (230, 240, 244))
        draw = ImageDraw.Draw(card)
        for wave in range(0, CARD[1], 18):
            line = [(x, wave + 8 * math.sin(x / 60 + wave)) for x in range(0, CARD[0] + 8, 8)]
            draw.line(line, fill=(208, 226, 232), width=2)
        if side == "front":
            rows = (
                ("姓名", "张三"),
                ("性别", "男    民族  汉"),
                ("出生", "1949 年 12 月 31 日"),
                ("住址", "北京市朝阳区示例路1号"),
            )
            for row, (label, value) in enumerate(rows):
                draw.text((56, 70 + row * 84), label, fill=(40, 90, 150), font=text)
                draw.text((150, 70 + row * 84), value, fill=(30, 30, 36), font=text)
            draw.text((56, 456), "公民身份号码", fill=(40, 90, 150), font=text)
            draw.text((270, 446), SAMPLE_NUMBER, fill=(30, 30, 36), font=ImageFont.truetype(FONT, 36))
            draw_card_photo(card, b"\x00\x01\x60\x71")
        else:
            draw.text((250, 90), "居民身份证（样本）", fill=(30, 30, 36), font=big)
            draw.text((150, 380), "签发机关   北京市公安局朝阳分局", fill=(30, 30, 36), font=text)
            draw.text((150, 440), "有效期限   2012.01.01 - 长期", fill=(30, 30, 36), font=text)
        layer = Image.new("RGBA", CARD, (0, 0, 0, 0))
        ImageDraw.Draw(layer).text((110, 200), "样本 SAMPLE", fill=(200, 30, 30, 110), font=mark)
        layer = layer.rotate(12)
        card.paste(layer, mask=layer)
        card.quantize(64).save(HERE / f"card_{side}.png", optimize=True)


if __name__ == "__main__":
    clip()
    small_clip()
    cards()
    sys.stdout.write("made\n")
