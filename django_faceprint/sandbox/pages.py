"""The HTML of the H5 page: plain forms at phone size, in Chinese, without any script.

The page says on every step that it is the sandbox. All text from outside is escaped; a redirect goes to
http and https only. Addresses and form fields are listed in :mod:`django_faceprint.sandbox.h5`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from html import escape
from urllib.parse import quote, urlsplit

from .errors import GONE_MESSAGE
from .media import SAMPLE_NAME, SAMPLE_NUMBER
from .message import Response
from .sessions import Session

REASONS: tuple[tuple[str, str], ...] = (
    ("223120", "活体检测未通过"),
    ("223131", "合成图检测未通过（疑似攻击）"),
    ("222351", "姓名与身份证号不匹配"),
    ("low_score", "相似度低于阈值"),
    ("223114", "图像质量不合格：人脸模糊"),
    ("222354", "身份证号不在库中"),
    ("222355", "库中无此人照片"),
    ("222361", "权威库接口超时"),
    ("216510", "动作视频超过 10 秒"),
)
CERTIFICATES: tuple[tuple[int, str], ...] = (
    (0, "居民身份证"),
    (1, "港澳台居民来往内地通行证"),
    (2, "外国人永久居留证"),
    (3, "定居国外的中国公民护照"),
    (4, "港澳台居民居住证"),
)
LIVENESS = {
    "distance": "远近活体",
    "colourful": "炫瞳活体",
    "action": "动作活体",
    "silent": "静默活体",
    "image": "图片活体",
    "digits": "数字活体",
}
HINTS = {
    "distance": "请将手机由远及近移动，使人脸充满圆框。",
    "colourful": "请正对屏幕，屏幕将闪烁不同颜色。",
    "action": "请按提示眨眼、张嘴、摇头。",
    "silent": "请正对屏幕，保持不动。",
    "image": "请正对屏幕拍摄一张照片。",
    "digits": "请用普通话读出屏幕上的数字。",
}

STYLE = """
*{box-sizing:border-box}
html{font:16px/1.6 system-ui,-apple-system,"PingFang SC","Noto Sans CJK SC","Microsoft YaHei",sans-serif;
color:#1c2433;background:#e9eef6;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:430px;min-height:100vh;background:#fff;display:flex;flex-direction:column}
.notice{margin:0;padding:8px 20px;background:#fff4d6;color:#6b4700;font-size:13px;line-height:1.5;
text-align:center}
header{padding:14px 20px 0;text-align:center}
header p{margin:0;font-size:15px;font-weight:600;color:#4a5568}
main{flex:1;padding:8px 20px 32px}
h1{margin:16px 0 6px;font-size:24px;line-height:1.35}
.lead{margin:0 0 18px;color:#4a5568}
ol.steps{display:flex;gap:8px;margin:12px 0 0;padding:0;list-style:none;font-size:12px;color:#5b667a}
ol.steps li{flex:1;padding-top:8px;border-top:4px solid #d7deea;text-align:center}
ol.steps li.done{border-color:#8fb4f8}
ol.steps li.now{border-color:#1f5fd6;color:#1f5fd6;font-weight:600}
.card{margin:0 0 16px;padding:16px;border:1px solid #d7deea;border-radius:14px;background:#f8fafd}
.card p{margin:0}
.card p+p{margin-top:8px}
label,legend{display:block;margin:0 0 6px;font-weight:600;font-size:15px}
input[type=text],select{width:100%;min-height:48px;margin:0 0 16px;padding:10px 12px;border:1px solid #8a95a8;
border-radius:10px;background:#fff;color:inherit;font:inherit}
.check{display:flex;gap:10px;align-items:flex-start;margin:0 0 16px;font-weight:400}
.check input{flex:none;width:20px;height:20px;margin:3px 0 0}
button,.button{display:block;width:100%;min-height:50px;margin:0 0 12px;padding:12px;border:2px solid #1f5fd6;
border-radius:25px;background:#1f5fd6;color:#fff;font:inherit;font-weight:600;text-align:center;text-decoration:none;
cursor:pointer}
button.bad{border-color:#b3261e;background:#fff;color:#b3261e}
button.quiet{border-color:#8a95a8;background:#fff;color:#3b4658}
:focus-visible{outline:3px solid #f0a000;outline-offset:2px}
figure{margin:0 0 16px;text-align:center}
figure img,figure svg{max-width:100%;height:auto;border-radius:14px}
figcaption{margin-top:6px;font-size:13px;color:#5b667a}
.sign{display:block;margin:28px auto 8px;width:88px;height:88px}
.centre{text-align:center}
.error{margin:0 0 16px;padding:12px 16px;border-left:4px solid #b3261e;background:#fdeceb;color:#7d1a14}
dl{display:grid;grid-template-columns:auto 1fr;gap:6px 16px;margin:0 0 20px;font-size:14px}
dt{color:#5b667a}
dd{margin:0;text-align:right}
footer{padding:12px 20px 20px;font-size:12px;color:#5b667a;text-align:center}
"""
STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
# form-action also governs the redirect that answers a form, hence http: and https:.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; img-src 'self'; "
        "form-action 'self' http: https:; base-uri 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Language": "zh-CN",
}

FACE = (
    '<figure><svg width="220" height="220" viewBox="0 0 220 220" role="img" aria-label="人脸取景框示意图">'
    '<circle cx="110" cy="110" r="104" fill="#e8f0fe" stroke="#1f5fd6" stroke-width="4" '
    'stroke-dasharray="10 7"/>'
    '<path d="M46 190a66 56 0 0 1 128 0a104 104 0 0 1-128 0z" fill="#8fb4f8"/>'
    '<ellipse cx="110" cy="98" rx="42" ry="52" fill="#ffe0c4"/>'
    '<path d="M66 92a44 52 0 0 1 88 0q-44-26-88 0z" fill="#3a2c28"/>'
    '<circle cx="94" cy="102" r="5" fill="#2b2320"/><circle cx="126" cy="102" r="5" fill="#2b2320"/>'
    '<path d="M94 126q16 12 32 0" fill="none" stroke="#b04848" stroke-width="4" stroke-linecap="round"/>'
    "</svg><figcaption>示意图：沙箱不打开摄像头，不采集人脸</figcaption></figure>"
)
GOOD_SIGN = (
    '<svg class="sign" viewBox="0 0 88 88" aria-hidden="true"><circle cx="44" cy="44" r="42" fill="#1a7f43"/>'
    '<path d="M24 45l14 14 27-29" fill="none" stroke="#fff" stroke-width="7" stroke-linecap="round" '
    'stroke-linejoin="round"/></svg>'
)
BAD_SIGN = (
    '<svg class="sign" viewBox="0 0 88 88" aria-hidden="true"><circle cx="44" cy="44" r="42" fill="#b3261e"/>'
    '<path d="M30 30l28 28M58 30L30 58" fill="none" stroke="#fff" stroke-width="7" '
    'stroke-linecap="round"/></svg>'
)
LEFT_SIGN = (
    '<svg class="sign" viewBox="0 0 88 88" aria-hidden="true"><circle cx="44" cy="44" r="42" fill="#5b667a"/>'
    '<path d="M44 22v28M44 62v3" fill="none" stroke="#fff" stroke-width="8" stroke-linecap="round"/></svg>'
)


class PageRefused(Exception):
    """The page refuses a request; ``html`` is the answer, ``outcome`` its name in the ledger."""

    def __init__(self, html: str, outcome: str, *, status: int = 200) -> None:
        super().__init__(outcome)
        self.html = html
        self.outcome = outcome
        self.status = status


def safe_redirect(url: str | None) -> str | None:
    """The URL ready for a Location header, or ``None`` unless it is a full http or https URL."""
    if not url or len(url) > 4096 or re.search(r"[\x00-\x20\x7f\\\ud800-\udfff]", url):
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1:
            return None
    except ValueError:
        return None
    return quote(url, safe="!#$%&'()*+,/:;=?@[]~")


class Page:
    """The pages of one session; ``urls`` are the redirect parameters to carry along."""

    def __init__(self, session: Session, urls: tuple[str, str]) -> None:
        self._session = session
        self._plan = session.plan
        self._urls = urls

    @property
    def link(self) -> str:
        """The address of the page, with the same parameters."""
        parts = [f"token={quote(self._session.token, safe='')}"]
        for name, url in zip(("successUrl", "failedUrl"), self._urls, strict=True):
            if url:
                parts.append(f"{name}={quote(url, safe='')}")
        return "/face/print/?" + "&".join(parts)

    def consent(self) -> str:
        """The consent form: the data collected, its purpose, and a box to tick."""
        body = (
            f'<h1>授权确认</h1><p class="lead">{escape(self._plan.consent_text)}</p>'
            f"{self._summary()}{self._form('consent')}"
            '<label class="check" for="agree"><input type="checkbox" id="agree" name="agree" value="1" '
            "required>"
            "<span>我已阅读并同意上述授权声明</span></label>"
            '<button type="submit">同意并继续</button></form>' + self._leave()
        )
        return self._page("授权确认", body, "consent")

    def identity(self, *, error: str | None = None, values: Mapping[str, str] | None = None) -> str:
        """The form for name and number; for an OCR plan with the sample card that was "recognised"."""
        values = values or ({"name": SAMPLE_NAME, "number": SAMPLE_NUMBER} if self._plan.uses_ocr else {})
        title = "确认身份证信息" if self._plan.uses_ocr else "填写身份信息"
        parts = [f"<h1>{title}</h1>"]
        if error:
            parts.append(f'<p class="error" role="alert">{escape(error)}</p>')
        if self._plan.uses_ocr:
            parts.append('<p class="lead">已识别样本身份证，请核对，可以修改。</p>')
            parts.append(_card_figure("front", "身份证人像面样本"))
            if "back" in self._plan.card_sides:
                parts.append(_card_figure("back", "身份证国徽面样本"))
        else:
            parts.append('<p class="lead">请填写本人的真实姓名和证件号码。（沙箱：请只用虚构信息）</p>')
        parts.append(self._form("identity"))
        parts.append(_text_input("name", "姓名", values.get("name", ""), "name"))
        parts.append(_text_input("number", "证件号码", values.get("number", ""), "off"))
        if self._plan.non_mainland:
            chosen = values.get("certificate_type", "0")
            options = "".join(
                f'<option value="{number}"{" selected" if str(number) == chosen else ""}>{label}</option>'
                for number, label in CERTIFICATES
            )
            parts.append(
                '<label for="certificate_type">证件类型</label>'
                f'<select id="certificate_type" name="certificate_type">{options}</select>'
            )
        parts.append('<button type="submit">下一步</button></form>')
        parts.append(self._leave())
        return self._page(title, "".join(parts), "identity")

    def liveness(self, *, error: str | None = None) -> str:
        """The choice of the outcome, in place of a camera."""
        kind = LIVENESS[self._plan.liveness] + ("" if self._plan.realtime else "（录制视频）")
        alert = f'<p class="error" role="alert">{escape(error)}</p>' if error else ""
        options = "".join(
            f'<option value="{code}">{escape(label)}{"" if code == "low_score" else f"（{code}）"}</option>'
            for code, label in REASONS
        )
        good, bad = (self._demotion("pass"), self._demotion("fail")) if self._plan.realtime else ("", "")
        body = (
            f'<h1>{kind}</h1><p class="lead">{HINTS[self._plan.liveness]}</p>{alert}{FACE}'
            f'<section class="card" aria-label="选择通过">{self._form("finish", "pass")}{good}'
            '<button type="submit">通过</button></form></section>'
            f'<section class="card" aria-label="选择未通过">{self._form("finish", "fail")}'
            f'<label for="code">未通过的原因</label><select id="code" name="code">{options}</select>{bad}'
            '<button type="submit" class="bad">未通过</button></form></section>' + self._leave()
        )
        return self._page(kind, body, "liveness")

    def result(self, passed: bool, reason: str, *, may_retry: bool) -> str:
        """The result, when there is no address to return to."""
        title = "认证通过" if passed else "认证未通过"
        again = f'<a class="button" href="{escape(self.link)}">重新认证</a>' if may_retry else ""
        note = "可以关闭本页面。" if not may_retry else "本方案允许重试。"
        why = f'<p class="lead">{escape(reason)}</p>' if not passed else ""
        sign = GOOD_SIGN if passed else BAD_SIGN
        return self._page(
            title, f'<div class="centre">{sign}<h1>{title}</h1>{why}<p>{note}</p>{again}</div>', "result"
        )

    def left(self) -> str:
        """The user gave up; nothing is decided."""
        body = (
            f'<div class="centre">{LEFT_SIGN}<h1>已放弃认证</h1>'
            '<p class="lead">本次认证没有结果，也不会跳转。链接在有效期内仍可继续使用。</p>'
            f'<a class="button" href="{escape(self.link)}">继续认证</a></div>'
        )
        return self._page("已放弃认证", body, "result")

    def unprepared(self) -> str:
        """The caller did not submit what the plan needs."""
        missing = (
            "该方案为指定用户身份核验，需要先调用 idcard/submit 上报用户信息。"
            if self._plan.identity_entry == "specified"
            else "该方案为自建人脸库比对，需要先调用 uploadMatchImage 上传对比图片。"
        )
        return problem("无法开始认证", missing)

    def _form(self, action: str, outcome: str | None = None) -> str:
        hidden = {"token": self._session.token, "successUrl": self._urls[0], "failedUrl": self._urls[1]}
        if outcome:
            hidden["outcome"] = outcome
        fields = "".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in hidden.items()
            if value
        )
        return f'<form method="post" action="/face/print/{action}">{fields}'

    def _leave(self) -> str:
        return f'{self._form("finish", "giveup")}<button type="submit" class="quiet">放弃</button></form>'

    def _demotion(self, outcome: str) -> str:
        note = "降级为录制视频" if self._plan.allow_demotion else "方案不允许降级，将认证失败"
        return (
            f'<label class="check" for="demote-{outcome}"><input type="checkbox" id="demote-{outcome}" '
            'name="demote" '
            f'value="1"><span>浏览器不支持实时采集（{note}）</span></label>'
        )

    def _summary(self) -> str:
        identity = {"none": "无需填写", "typed": "手动输入", "ocr": "身份证识别", "specified": "已由商户上报"}
        source = {
            "authoritative": "权威库比对",
            "own_library": "自建人脸库比对",
            "liveness_only": "仅活体检测",
        }
        rows = (
            ("比对方式", source[self._plan.match_source]),
            ("身份信息", identity[self._plan.identity_entry]),
            ("活体方式", LIVENESS[self._plan.liveness]),
        )
        return "<dl>" + "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in rows) + "</dl>"

    def _page(self, title: str, body: str, step: str) -> str:
        names = [("consent", "授权"), ("liveness", "活体检测"), ("result", "结果")]
        if self._plan.types_identity:
            names.insert(1, ("identity", "身份信息"))
        at = [name for name, _ in names].index(step)
        items = []
        for number, (_, label) in enumerate(names):
            css = (
                ' class="done"' if number < at else ' class="now" aria-current="step"' if number == at else ""
            )
            items.append(f"<li{css}>{label}</li>")
        steps = f'<ol class="steps" aria-label="认证步骤">{"".join(items)}</ol>'
        heading = f"<header><p>{escape(self._plan.title)}</p></header>" if self._plan.show_title else ""
        return _document(title, f"{heading}<main>{steps}{body}</main>")


def html_response(html: str, *, status: int = 200, outcome: str = "ok") -> Response:
    """A page as an answer, with the headers of every page."""
    return Response.of_html(html, status=status, outcome=outcome, headers=HEADERS)


def gone() -> str:
    """The token is unknown, used up or too old."""
    return problem(GONE_MESSAGE, "请返回后重新发起认证。")


def problem(title: str, text: str) -> str:
    """A page that ends the flow."""
    body = f'<div class="centre">{BAD_SIGN}<h1>{escape(title)}</h1><p class="lead">{escape(text)}</p></div>'
    return _document(title, f"<main>{body}</main>")


def _card_figure(side: str, label: str) -> str:
    source = f"/face/print/card.png?side={side}"
    image = f'<img src="{source}" width="856" height="540" alt="{label}">'
    return f"<figure>{image}<figcaption>{label}</figcaption></figure>"


def _text_input(name: str, label: str, value: str, autocomplete: str) -> str:
    return (
        f'<label for="{name}">{label}</label><input type="text" id="{name}" name="{name}" '
        f'value="{escape(value)}" '
        f'maxlength="60" autocomplete="{autocomplete}" required>'
    )


def _document(title: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="zh-CN"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - 沙箱</title><style>{STYLE}</style></head><body>"
        '<p class="notice" role="note"><strong>沙箱</strong>：仅供测试，不是百度页面，不采集真实信息</p>'
        f"{body}<footer>沙箱 · django-faceprint sandbox</footer></body></html>"
    )
