from __future__ import annotations

from typing import Any

import pytest

from django_faceprint.exceptions import FaceprintConfigurationError
from django_faceprint.hosts import (
    host_danger,
    media_host_danger,
    refuse_unsafe_hosts,
    unsafe_settings,
    url_danger,
)

LIVE = {
    "API_URL": "https://aip.baidubce.com",
    "H5_URL": "https://brain.baidu.com/face/print/",
    "PUBLIC_URL": "https://app.example.com",
    "MEDIA_HOSTS": ["brain.baidu.com", "*.bcebos.com"],
}


@pytest.mark.parametrize(
    ("host", "danger"),
    [
        ("aip.baidubce.com", ""),
        ("brain.baidu.com.", ""),
        ("8.8.8.8", ""),
        ("2400:da00::6666", ""),
        ("localhost", "loopback"),
        ("LOCALHOST.", "loopback"),
        ("sandbox.localhost", "loopback"),
        ("127.0.0.1", "loopback"),
        ("127.8.9.10", "loopback"),
        ("127.1", "loopback"),
        ("0x7f000001", "loopback"),
        ("2130706433", "loopback"),
        ("017700000001", "loopback"),
        ("0.0.0.0", "loopback"),
        ("::1", "loopback"),
        ("[::1]", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("2002:7f00:1::", "loopback"),
        ("10.1.2.3", "private"),
        ("172.16.0.1", "private"),
        ("192.168.1.1", "private"),
        ("::ffff:10.0.0.1", "private"),
        ("169.254.169.254", "private"),
        ("100.64.0.1", "private"),
        ("198.51.100.7", "private"),
        ("224.0.0.1", "private"),
        ("fd00::1", "private"),
        ("fe80::1%eth0", "private"),
        ("sandbox", "private"),
        ("baidu.local", "private"),
        ("kyc.corp", "private"),
        ("", "invalid"),
        ("a b.com", "invalid"),
    ],
)
def test_hosts(host: str, danger: str) -> None:
    assert host_danger(host) == danger


@pytest.mark.parametrize(
    ("url", "danger"),
    [
        ("https://aip.baidubce.com", ""),
        ("https://aip.baidubce.com:8443/x", ""),
        ("http://aip.baidubce.com", "plain_http"),
        ("http://127.0.0.1:8001", "loopback"),
        ("https://[::1]:8001/", "loopback"),
        ("https://10.0.0.1", "private"),
        ("ftp://aip.baidubce.com", "invalid"),
        ("aip.baidubce.com", "invalid"),
        ("https://", "invalid"),
        ("https://[oops", "invalid"),
    ],
)
def test_urls(url: str, danger: str) -> None:
    assert url_danger(url) == danger


@pytest.mark.parametrize(
    ("entry", "danger"),
    [
        ("*.bcebos.com", ""),
        ("brain.baidu.com:443", ""),
        ("127.0.0.1:8001", "loopback"),
        ("[::1]:8001", "loopback"),
        ("*.local", "private"),
        ("*.com.*", "invalid"),
        ("*", "invalid"),
        ("*.", "invalid"),
    ],
)
def test_media_hosts(entry: str, danger: str) -> None:
    assert media_host_danger(entry) == danger


def test_live_settings_are_safe(settings: Any) -> None:
    settings.DEBUG = False
    settings.FACEPRINT = settings.FACEPRINT | LIVE
    assert unsafe_settings() == []
    refuse_unsafe_hosts()
    settings.FACEPRINT = settings.FACEPRINT | {"PUBLIC_URL": ""}
    refuse_unsafe_hosts()


@pytest.mark.parametrize(
    ("setting", "value", "danger"),
    [
        ("API_URL", "http://127.0.0.1:8001", "loopback"),
        ("H5_URL", "http://brain.baidu.com/face/print/", "plain_http"),
        ("PUBLIC_URL", "https://192.168.0.4", "private"),
        ("MEDIA_HOSTS", ["*.bcebos.com", "localhost:8001"], "loopback"),
    ],
)
def test_a_forgotten_setting_refuses_sessions(settings: Any, setting: str, value: Any, danger: str) -> None:
    settings.DEBUG = False
    settings.FACEPRINT = settings.FACEPRINT | LIVE | {setting: value}
    assert unsafe_settings() == [(setting, danger)]
    with pytest.raises(FaceprintConfigurationError, match=setting) as caught:
        refuse_unsafe_hosts()
    assert "127.0.0.1" not in str(caught.value)
    settings.DEBUG = True
    refuse_unsafe_hosts()
