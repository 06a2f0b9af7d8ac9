"""Baidu's error codes with their messages, and the two envelopes of errors (API reference 4)."""

from __future__ import annotations

from typing import Any

from .message import Response
from .store import Store

GONE_MESSAGE = "Token无效或者已过期"
GATEWAY_MESSAGES = {
    2: "Service temporarily unavailable",
    3: "Unsupported openapi method",
    4: "Open api request limit reached",
    6: "no permission to access data",
    17: "Open api daily request limit reached",
    18: "Open api qps request limit reached",
    19: "Open api total request limit reached",
    100: "Invalid parameter",
    110: "Access token invalid or no longer valid",
    111: "Access token expired",
}
SERVICE_MESSAGES = {
    283400: "服务异常,请稍后再试",
    283435: "方案不存在。Plan not exist.",
    283450: "认证尚未开始",
    283512: "服务异常,请稍后再试",
    283513: "请求参数错误",
    283520: "请传入核验方式",
    216100: "invalid param",
    222001: "param[] is null",
    222013: "param[image] format error",
    222019: "param[quality_control] format error",
    222020: "param[liveness_control] format error",
    222022: "param[id_card_number] format error",
    222202: "pic not has face",
    222203: "image check fail",
    222304: "image size is too large",
    222350: "police picture is none or low quality",
    222351: "身份证姓名不匹配",
    222354: "身份证号不在库中",
    222355: "库中无此人照片",
    222356: "采集图片质量不合格",
    222360: "姓名或身份证号不合法",
    222361: "police service timeout",
    223114: "人脸模糊",
    223120: "活体检测未通过",
    223122: "右眼被遮挡",
    223123: "左脸被遮挡",
    223124: "右脸被遮挡",
    223125: "下巴被遮挡",
    223126: "鼻子被遮挡",
    223127: "嘴巴被遮挡",
    223131: "合成图检测未通过",
    216500: "unknown error",
    216510: "动作活体视频超过10秒",
}


class GatewayError(Exception):
    """An error of the gateway layer (API reference 4.1)."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def answer(self) -> Response:
        """The answer in the gateway's envelope."""
        payload = {"error_code": self.code, "error_msg": GATEWAY_MESSAGES[self.code]}
        return Response.of_json(payload, outcome=str(self.code))


class ServiceError(Exception):
    """An error of the service layer (API reference 4.2). ``code`` None: an answer without a code."""

    def __init__(self, code: int | None, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or SERVICE_MESSAGES.get(code or 0, "unknown error")

    @classmethod
    def gone(cls, store: Store) -> ServiceError:
        """The verify_token is unknown, used, expired, purged or another application's."""
        return cls(store.switches.token_gone_code, GONE_MESSAGE)

    def answer(self, store: Store) -> Response:
        """The answer in the envelope that the switches choose."""
        envelope = store.switches.error_envelope
        code = {} if self.code is None else {"code" if envelope == "service" else "error_code": self.code}
        payload: dict[str, Any]
        if envelope == "service":
            payload = {"success": False, "result": None, **code, "message": self.message}
        else:
            payload = {**code, "error_msg": self.message}
            if envelope == "mixed":
                payload = {"success": False, **payload}
        payload["log_id"] = shown_log_id(store)
        return Response.of_json(payload, outcome="gone" if self.code is None else str(self.code))


def shown_log_id(store: Store) -> str | int:
    """A log id as the switches want it in answers."""
    log_id = store.log_id()
    return int(log_id) if store.switches.log_id_number else log_id
