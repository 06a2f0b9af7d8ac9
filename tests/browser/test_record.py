"""The page of one record as an operator works with it: everything in view, pictures compared, keys, phone."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import timedelta
from importlib.resources import files
from typing import Any

import pytest
from PIL import Image, ImageDraw

from django_faceprint.evidence.thumbnails import make_thumbnail
from django_faceprint.models import (
    AccessLog,
    MediaAsset,
    UpstreamAnswer,
    VerificationAttempt,
    VerificationSession,
)
from django_faceprint.privacy.files import seal_thumbnail, unwrap_file_key
from tests import factories

from .conftest import LIST, log_in

Screenshot = Callable[[Any, str], None]
Kind = MediaAsset.Kind
#: What a careful host allows; the thumbnails are data: URLs.
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
POLICY += "connect-src 'self'; form-action 'self'; base-uri 'none'"
ZOOM = "[...document.querySelectorAll('.fp-pane canvas')].map(c => c.style.transform)"


def face(shade: int, width: int = 480, height: int = 640) -> bytes:
    """A drawn face, each *shade* another one."""
    image = Image.new("RGB", (width, height), (205 - shade, 215, 225))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 440, 420, 900), fill=(40, 60 + shade, 110))
    draw.ellipse((120, 110, 360, 440), fill=(236, 200 - shade, 170))
    draw.chord((110, 70, 370, 330), 180, 360, fill=(40, 32, 30))
    for x in (180, 262):
        draw.ellipse((x, 250, x + 38, 272), fill="white")
        draw.ellipse((x + 11, 252, x + 29, 270), fill=(40, 30, 30))
    draw.arc((190, 310, 290, 380), 20, 160, fill=(150, 60, 60), width=7)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=88)
    return content.getvalue()


def card() -> bytes:
    return files("django_faceprint.sandbox").joinpath("assets/card_front.png").read_bytes()


def thumbnail(asset: MediaAsset) -> None:
    small = make_thumbnail(face(0))
    assert small is not None
    assert asset.wrapped_key is not None
    key = unwrap_file_key(bytes(asset.wrapped_key), asset.public_id)
    MediaAsset.objects.filter(pk=asset.pk).update(thumbnail=seal_thumbnail(small, key, asset.public_id))


@pytest.fixture
def records(transactional_db: None) -> list[VerificationSession]:
    """Three records of one person, the oldest first; the one in the middle has everything."""
    plan = factories.make_plan(plan_id="12669", name="开户实名认证", match_source="match_image")
    older = factories.make_session(
        plan=plan,
        reference="ORDER-1",
        verdict="failed",
        archive_state="complete",
        score=78.3,
        liveness_score=0.91,
        threshold=80.0,
        returned_at=factories.now(),
        decided_at=factories.now(),
        error_class="verification_failed",
        error_code="222350",
        error_message="match failed",
        error_log_id="1390000000000000009",
        age=timedelta(minutes=30),
    )
    for order in (1, 2):
        factories.make_stored_asset(older, Kind.ATTEMPT_FACE, face(10 * order), attempt_order=order)
        VerificationAttempt.objects.create(
            session=older, order=order, passed=False, code="222350", score=78.3
        )
    factories.make_asset(older, Kind.MATCH_IMAGE, state="not_provided", reason="not_kept")
    middle = factories.make_passed_session(
        plan=plan,
        reference="ORDER-2",
        purpose="开户",
        age=timedelta(minutes=20),
        ocr={"name": factories.NAME, "number": factories.NUMBER, "address": "浙江省杭州市西湖区文三路1号"},
        confirmed={"name": "张三峰", "number": factories.NUMBER},
        stat={
            "OCR": [{"error_code": "0", "count": 2}],
            "VideoLiveness": [{"error_code": "223120", "count": 1}],
        },
    )
    thumbnail(factories.make_stored_asset(middle, Kind.FACE, face(0)))
    factories.make_stored_asset(middle, Kind.ID_FRONT, card())
    factories.make_stored_asset(middle, Kind.MATCH_IMAGE, face(40))
    factories.make_stored_asset(middle, Kind.PROCESS_VIDEO)
    for position in range(4):
        factories.make_stored_asset(middle, Kind.FRAME, face(5 * position), position=position)
    VerificationAttempt.objects.create(
        session=middle, order=1, passed=True, code="0", score=84.4, is_charged=True, charge_type="verify"
    )
    factories.make_call(middle, endpoint="verify_token_generate")
    factories.make_call(middle)
    UpstreamAnswer.objects.create(
        session=middle,
        endpoint="result_detail",
        log_id="1390000000000000002",
        body_index="x",
        body=json.dumps(
            {
                "success": True,
                "result": {"idcard_confirm": {"name": factories.NAME, "idcard_number": factories.NUMBER}},
                "log_id": "1390000000000000002",
            }
        ),
    )
    newer = factories.make_session(plan=plan, reference="ORDER-3", age=timedelta(minutes=10))
    return [older, middle, newer]


def under_policy(page: Any) -> list[str]:
    """Documents come with a strict Content-Security-Policy; what scripts and the policy complain of."""
    complaints: list[str] = []

    def answer(route: Any) -> None:
        if route.request.resource_type != "document" or route.request.method != "GET":
            route.continue_()
            return
        response = route.fetch(max_redirects=0)
        route.fulfill(response=response, headers={**response.headers, "content-security-policy": POLICY})

    page.route("**/change/**", answer)
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


@pytest.fixture
def laptop(chromium: Any, site: Any, records: list[VerificationSession]) -> Any:
    """A logged-in operator at 1280 × 800, in Chinese."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, locale="zh-CN")
    yield log_in(context.new_page(), site)
    context.close()


def open_record(page: Any, site: Any, session: VerificationSession, listed: str = "") -> None:
    page.goto(f"{site.url}{LIST}{session.pk}/change/{listed}")
    page.wait_for_selector("#fp-media")


def show_media(page: Any) -> None:
    page.keyboard.press("o")
    page.wait_for_function(
        "[...document.querySelectorAll('#fp-media img[data-src]')].every(i => i.complete && i.naturalWidth)"
    )
    page.wait_for_function("[...document.querySelectorAll('#fp-media video')].every(v => v.readyState >= 2)")


def bottom(page: Any, selector: str) -> float:
    box = page.locator(selector).last.bounding_box()
    assert box
    return float(box["y"] + box["height"])


def test_the_verdict_fits_on_one_screen(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    older, middle, _newer = records
    for name, session in (("passed", middle), ("failed", older)):
        open_record(laptop, site, session)
        show_media(laptop)
        screenshot(laptop, f"record-{name}")
        for part in (".fp-hero", "#fp-media", ".fp-gauge", ".fp-identity"):
            assert bottom(laptop, part) <= 800, (name, part)
    assert laptop.get_by_role("heading", name="相似度 78.3 < 方案 12669 的阈值 80：未通过").is_visible()
    assert laptop.evaluate("window.scrollY") == 0


def test_one_key_opens_all_and_each_look_is_logged(
    site: Any, laptop: Any, records: list[VerificationSession]
) -> None:
    open_record(laptop, site, records[1])
    assert laptop.locator("#fp-media img[src^='/admin/']").count() == 0
    show_media(laptop)
    looks = AccessLog.objects.filter(action="view_media", session_id=records[1].public_id)
    assert set(looks.values_list("asset_id", flat=True)) == set(
        records[1].assets.values_list("public_id", flat=True)
    )
    before = looks.count()
    laptop.keyboard.press("c")
    laptop.wait_for_selector("#fp-viewer[open]")
    laptop.keyboard.press("Escape")
    assert looks.count() == before


def test_pictures_are_compared_and_enlarged_together(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    complaints = under_policy(laptop)
    open_record(laptop, site, records[1])
    # One key from the covered page to the comparison.
    laptop.keyboard.press("c")
    laptop.wait_for_selector("#fp-viewer[open]")
    assert laptop.locator(".fp-pane p").all_inner_texts() == ["人脸图片", "身份证人像面", "对比图片"]
    assert laptop.evaluate(ZOOM) == ["translate(0%, 0%) scale(1)"] * 3
    laptop.keyboard.press("+")
    laptop.keyboard.press("+")
    laptop.keyboard.press("ArrowLeft")
    zoomed = laptop.evaluate(ZOOM)
    assert zoomed[0] == zoomed[1] == zoomed[2]
    assert "scale(1.5625)" in zoomed[0]
    assert zoomed[0].startswith("translate(8%")
    assert laptop.locator("#fp-viewer output").inner_text() == "156 %"
    laptop.keyboard.press("0")
    assert laptop.evaluate(ZOOM) == ["translate(0%, 0%) scale(1)"] * 3

    # By wheel at a place, which stays where it is; then by hand.
    box = laptop.locator(".fp-pane-frame").first.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 4, box["y"] + box["height"] / 4
    laptop.mouse.move(x, y)
    laptop.mouse.wheel(0, -462)
    laptop.wait_for_function(f"{ZOOM}.every(t => t.includes('scale(1.99'))")
    before = laptop.evaluate(ZOOM)
    assert re.match(r"translate\(2[45]\.\d+%, 2[45]\.", before[0])
    laptop.mouse.down()
    laptop.mouse.move(x - 60, y - 30, steps=4)
    laptop.mouse.up()
    after = laptop.evaluate(ZOOM)
    assert after != before
    assert len(set(after)) == 1
    # A picture of the whole page would go on far below.
    laptop.evaluate("document.querySelector('.fp-grid').style.display = 'none'")
    screenshot(laptop, "console-compare")
    laptop.evaluate("document.querySelector('.fp-grid').style.display = ''")

    # Each by itself.
    laptop.uncheck("#fp-together")
    laptop.locator(".fp-pane-frame").nth(1).focus()
    laptop.keyboard.press("+")
    alone = laptop.evaluate(ZOOM)
    assert alone[0] == alone[2] == after[0]
    assert alone[1] != after[1]

    # Another picture in the place of the first one; never more than three.
    laptop.get_by_role("checkbox", name="视频帧 1").check()
    assert laptop.locator(".fp-pane p").all_inner_texts() == ["身份证人像面", "对比图片", "视频帧 1"]
    laptop.keyboard.press("Escape")
    assert laptop.locator("#fp-viewer[open]").count() == 0
    assert laptop.locator("canvas").count() == 0
    assert complaints == []


def test_a_picture_is_enlarged_by_a_click(site: Any, laptop: Any, records: list[VerificationSession]) -> None:
    open_record(laptop, site, records[1])
    show_media(laptop)
    laptop.get_by_role("button", name="对比图片：放大").click()
    assert laptop.locator(".fp-pane p").all_inner_texts() == ["对比图片"]
    laptop.locator(".fp-pane-frame").dblclick()
    assert "scale(2.5)" in laptop.evaluate(ZOOM)[0]
    # A frame of the video beside it.
    laptop.get_by_role("checkbox", name="过程视频").check()
    assert laptop.locator(".fp-pane canvas").count() == 2
    laptop.get_by_role("button", name="关闭").click()
    assert laptop.evaluate("document.activeElement.matches('button.fp-clear')")


def test_speed_and_single_frames_of_the_video(
    site: Any, laptop: Any, records: list[VerificationSession]
) -> None:
    open_record(laptop, site, records[1])
    show_media(laptop)
    video = "document.querySelector('#fp-media video')"
    for speed in ("0.25", "2"):
        laptop.get_by_label("速度").select_option(speed)
        assert laptop.evaluate(f"{video}.playbackRate") == float(speed)
    laptop.locator("#fp-pictures").click()
    # In a list the full stop chooses a speed; anywhere else it is the next frame.
    laptop.evaluate("document.activeElement.blur()")
    for _ in range(3):
        laptop.keyboard.press(".")
    laptop.wait_for_function(f"Math.abs({video}.currentTime - .12) < .001")
    laptop.keyboard.press(",")
    laptop.wait_for_function(f"Math.abs({video}.currentTime - .08) < .001")
    laptop.get_by_role("button", name="上一帧").click()
    laptop.wait_for_function(f"Math.abs({video}.currentTime - .04) < .001")


def test_from_record_to_record_by_key(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    older, middle, _newer = records
    laptop.goto(f"{site.url}{LIST}")
    laptop.get_by_text("ORDER-3").click()
    laptop.wait_for_selector("#fp-media")
    laptop.keyboard.press("n")
    laptop.wait_for_url(f"**/{middle.pk}/change/**")
    laptop.keyboard.press("n")
    laptop.wait_for_url(f"**/{older.pk}/change/**")
    laptop.keyboard.press("p")
    laptop.wait_for_url(f"**/{middle.pk}/change/**")
    # What is typed into a field is no command.
    laptop.locator("#fp-reason-text").press_sequentially("npoc?")
    assert laptop.input_value("#fp-reason-text") == "npoc?"
    assert f"/{middle.pk}/" in laptop.url
    laptop.evaluate("document.activeElement.blur()")
    laptop.keyboard.press("?")
    laptop.wait_for_selector("#fp-keys[open]")
    screenshot(laptop, "record-keys")
    laptop.keyboard.press("n")
    assert f"/{middle.pk}/" in laptop.url
    laptop.keyboard.press("Escape")
    laptop.wait_for_selector("#fp-keys[open]", state="detached")

    # Within a filter, and back to it.
    laptop.goto(f"{site.url}{LIST}?verdict=failed,pending")
    laptop.get_by_text("ORDER-3").click()
    laptop.wait_for_selector("#fp-media")
    laptop.keyboard.press("n")
    laptop.wait_for_url(f"**/{older.pk}/change/**")
    laptop.locator(".fp-crumbs a").last.click()
    laptop.wait_for_url("**verdict=failed**")


def test_what_cannot_be_opened_says_so_and_is_tried_again(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    _older, middle, _newer = records
    broken = middle.assets.get(kind=Kind.MATCH_IMAGE)
    video = middle.assets.get(kind=Kind.PROCESS_VIDEO)
    for asset in (broken, video):
        laptop.route(f"**/media/{asset.public_id}/", lambda route: route.fulfill(status=503))
    open_record(laptop, site, middle)
    laptop.keyboard.press("o")
    laptop.wait_for_function("document.querySelectorAll('#fp-media .fp-broken').length === 2")
    assert laptop.get_by_text("有文件无法读取").is_visible()
    assert laptop.locator(".fp-failed:visible").count() == 2
    screenshot(laptop, "record-broken")
    laptop.unroute_all()
    for _ in range(2):
        laptop.get_by_role("button", name="重试").first.click()
        laptop.wait_for_timeout(50)
    laptop.wait_for_function("document.querySelectorAll('#fp-media .fp-broken').length === 0")
    assert laptop.locator(".fp-media-failed").is_hidden()


def test_a_raw_answer_is_shown_masked_on_demand(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    complaints = under_policy(laptop)
    open_record(laptop, site, records[1])
    link = laptop.get_by_role("link", name="查看 result/detail 的接口返回记录")
    link.click()
    laptop.wait_for_selector(".fp-answer-text")
    text = json.loads(laptop.locator(".fp-answer-text").inner_text())
    assert text["result"]["idcard_confirm"] == {"name": "张**", "idcard_number": "110***********002X"}
    screenshot(laptop, "record-answer")
    link.click()
    assert laptop.locator(".fp-answer-text").count() == 0
    laptop.route("**/answer/**", lambda route: route.abort())
    link.click()
    laptop.get_by_text("无法加载，请重试。").wait_for()
    assert [text for text in complaints if "ERR_FAILED" not in text] == []


def test_a_hash_is_copied(site: Any, laptop: Any, records: list[VerificationSession]) -> None:
    laptop.context.grant_permissions(["clipboard-read", "clipboard-write"])
    open_record(laptop, site, records[1])
    laptop.get_by_role("button", name="复制人脸图片的 SHA-256").click()
    laptop.get_by_text("已复制").wait_for()
    assert laptop.evaluate("navigator.clipboard.readText()") == records[1].assets.get(kind=Kind.FACE).sha256


def test_other_records_of_the_person_are_a_click_away(
    site: Any, laptop: Any, records: list[VerificationSession]
) -> None:
    open_record(laptop, site, records[1])
    laptop.get_by_role("link", name="另有 2 条").click()
    table = laptop.get_by_role("region", name="同一人的其他记录")
    assert table.locator("tbody tr").count() == 2
    table.get_by_role("link").last.click()
    laptop.wait_for_url(f"**/{records[0].pk}/change/")


def test_in_the_dark(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    laptop.emulate_media(color_scheme="dark")
    open_record(laptop, site, records[1])
    screenshot(laptop, "record-dark-covered")
    show_media(laptop)
    background = laptop.evaluate("getComputedStyle(document.querySelector('#fp-media')).backgroundColor")
    assert background == "rgb(27, 28, 32)"
    screenshot(laptop, "console-record-dark")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(
    site: Any, phone: Any, records: list[VerificationSession], screenshot: Screenshot, scheme: str
) -> None:
    phone.emulate_media(color_scheme=scheme)
    log_in(phone, site)
    open_record(phone, site, records[1])
    screenshot(phone, f"record-phone-covered-{scheme}")
    phone.get_by_role("button", name="显示图片和视频").click()
    phone.wait_for_function(
        "[...document.querySelectorAll('#fp-media img[data-src]')].every(i => i.complete && i.naturalWidth)"
    )
    assert phone.evaluate("document.documentElement.scrollWidth") <= 375
    screenshot(phone, f"console-record-phone-{scheme}")
    phone.get_by_role("button", name="对比", exact=True).click()
    phone.wait_for_selector("#fp-viewer[open]")
    box = phone.locator("#fp-viewer").bounding_box()
    assert box
    assert (box["x"], box["width"]) == (0, 375)
    # Two fingers, 100 pixels apart and then 200.
    phone.evaluate(
        """() => {
            const frame = document.querySelector('.fp-pane-frame'), box = frame.getBoundingClientRect();
            const at = (type, id, x) => frame.dispatchEvent(new PointerEvent(type, {
                pointerId: id, pointerType: 'touch', bubbles: true,
                clientX: box.left + box.width / 2 + x, clientY: box.top + box.height / 2,
            }));
            frame.setPointerCapture = () => {};
            at('pointerdown', 1, -50); at('pointerdown', 2, 50);
            at('pointermove', 1, -100); at('pointermove', 2, 100);
            at('pointerup', 1, -100); at('pointerup', 2, 100);
        }"""
    )
    scales = [float(text.split("scale(")[1].rstrip(")")) for text in phone.evaluate(ZOOM)]
    assert scales == pytest.approx([2.0] * 3)
    if scheme == "light":
        screenshot(phone, "record-phone-compare")
    phone.get_by_role("button", name="关闭").click()
    phone.get_by_role("link", name="下一条").click()
    phone.wait_for_url(f"**/{records[0].pk}/change/**")


def test_an_empty_record_says_what_is_to_come(
    site: Any, laptop: Any, records: list[VerificationSession], screenshot: Screenshot
) -> None:
    open_record(laptop, site, records[2])
    for sentence in (
        "此记录没有归档文件。",
        "百度未返回认证尝试。",
        "尚未保存任何接口返回记录。",
    ):
        assert laptop.get_by_text(sentence).is_visible(), sentence
    assert laptop.locator("#fp-show-media").count() == 0
    screenshot(laptop, "record-empty")
