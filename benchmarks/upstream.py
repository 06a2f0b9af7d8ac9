"""nginx in Baidu's place: the same answers and files for every session, under URLs of its own.

nginx answers from the page cache with next to no work, so that the client is measured. It serves plain http,
https, and http with 50 ms before each answer.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from example_project.demo.processes import free_port

from .workspace import listens, program, server

DELAY = 0.050
VIDEO_BYTES = 3_000_000
PICTURE_BYTES = 150_000
CARD_BYTES = 225_000
FRAMES = 4

_API = "/rpc/2.0/brain/solution/faceprint/result"
#: File names below a session's own path.
FACE = "face.jpg"
VIDEO = "video.mp4"
FRAME_NAMES = tuple(f"frame{number}.jpg" for number in range(FRAMES))
MEDIA = (FACE, VIDEO, *FRAME_NAMES)
ANSWERS = {
    "detail": f"{_API}/detail",
    "getall": f"{_API}/getall",
    "simple": f"{_API}/simple",
    "media": f"{_API}/media/query",
    "stat": f"{_API}/stat",
}


@dataclass(frozen=True)
class Upstream:
    """A running upstream: its addresses, trusted certificates, and the expected content of an archive."""

    http: str
    https: str
    delayed: str
    authorities: str
    #: SHA-256 of every file that a session yields, card pictures included.
    hashes: tuple[str, ...]
    #: Bytes of one session's files and large answers.
    session_bytes: int
    version: str

    def address(self, network: str) -> str:
        """One of the three by name."""
        return {"http": self.http, "https": self.https, "delayed": self.delayed}[network]


@contextmanager
def serving(home: Path, *, video_bytes: int = VIDEO_BYTES) -> Iterator[Upstream]:
    """nginx on free ports, until the block is left. *home* takes its files."""
    nginx = program("nginx", install="Debian, Ubuntu: apt install nginx-light")
    # A folder of its own: nginx may read as another user.
    content = home / "content"
    content.mkdir()
    pictures = _write_files(content, video_bytes)
    authorities = _write_certificates(home)
    ports = {"http": free_port(), "https": free_port(), "delayed": free_port()}
    configuration = home / "nginx.conf"
    configuration.write_text(_configuration(home, content, ports), encoding="utf-8")
    command = [nginx, "-p", str(home), "-c", str(configuration), "-e", "stderr"]
    with server(command, log=home / "nginx.log", ready=lambda: all(map(listens, ports.values()))):
        yield Upstream(
            http=f"http://127.0.0.1:{ports['http']}",
            https=f"https://127.0.0.1:{ports['https']}",
            delayed=f"http://127.0.0.1:{ports['delayed']}",
            authorities=str(authorities),
            hashes=pictures,
            session_bytes=sum((content / name).stat().st_size for name in (*MEDIA, "detail", "getall")),
            version=_version(nginx),
        )


def _version(nginx: str) -> str:
    import subprocess

    done = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True)
    return (done.stderr or done.stdout).partition("version: ")[2].strip().replace("/", " ")


def _write_files(content: Path, video_bytes: int) -> tuple[str, ...]:
    """The files of one session; returns the hashes that its archive must have."""
    # Fixed, so that every run serves the same.
    noise = random.Random(20260302)
    kept = []
    for name in (FACE, *FRAME_NAMES):
        kept.append(_picture(noise, PICTURE_BYTES))
        (content / name).write_bytes(kept[-1])
    kept.append(_video(noise, video_bytes))
    (content / VIDEO).write_bytes(kept[-1])
    front, back = _picture(noise, CARD_BYTES), _picture(noise, CARD_BYTES)
    kept += [front, back]
    cards = {"front_base64": _base64(front), "back_base64": _base64(back)}
    for name, result in (("detail", _detail(cards)), ("getall", _everything(cards))):
        answer = {"success": True, "result": result, "log_id": "1390123456789012345"}
        (content / name).write_text(json.dumps(answer, ensure_ascii=False), encoding="utf-8")
    return tuple(sorted(hashlib.sha256(data).hexdigest() for data in kept))


def _picture(noise: random.Random, size: int) -> bytes:
    """A JPEG of grey noise of *size* bytes, give or take 3 %."""
    from PIL import Image

    # At this quality a pixel of noise takes rather more than half a byte.
    side = int((size / 0.9) ** 0.5)
    for _ in range(8):
        image = Image.frombytes("L", (side, side), noise.randbytes(side * side))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=75)
        data = buffer.getvalue()
        if abs(len(data) - size) < size * 0.03:
            return data
        side = int(side * (size / len(data)) ** 0.5)
    raise AssertionError("a picture does not reach the wanted size")


def _video(noise: random.Random, size: int) -> bytes:
    """The sandbox's video of some 50 kB, made larger by a box that players skip."""
    clip = files("django_faceprint.sandbox").joinpath("assets/face.mp4").read_bytes()
    padding = size - len(clip) - 8
    return clip + (padding + 8).to_bytes(4, "big") + b"free" + noise.randbytes(padding)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _detail(cards: dict[str, str]) -> dict[str, Any]:
    return {
        "verify_result": {"score": 91.2, "liveness_score": 0.99, "spoofing": 0.0001},
        "idcard_confirm": {"idcard_number": "11010519491231002X", "name": "张三丰"},
        "idcard_images": cards,
        "is_demote": False,
    }


def _everything(cards: dict[str, str]) -> dict[str, Any]:
    beijing = timezone(timedelta(hours=8))
    verified_at = (datetime.now(UTC) - timedelta(minutes=1)).astimezone(beijing)
    return {
        "verify_count": 1,
        "ocr_charge_count": 1,
        "verify_result": [
            {
                "order": 1,
                "is_verify_passed": True,
                "code": 0,
                "message": "success",
                "verify_time": verified_at.strftime("%Y-%m-%d %H:%M:%S"),
                "verify_detail": {"score": 91.2, "threshold": 80, "liveness_score": 0.99, "risk_level": "1"},
                "idcard_confirm": {"idcard_number": "11010519491231002X", "name": "张三丰", "idcard_type": 0},
                "idcard_images": cards,
            }
        ],
    }


def _write_certificates(home: Path) -> Path:
    """A certificate for 127.0.0.1; returns certifi's list with it appended, as long as lists in use."""
    import certifi
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "faceprint benchmark")])
    moment = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - timedelta(days=1))
        .not_valid_after(moment + timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, SHA256())
    )
    text = certificate.public_bytes(serialization.Encoding.PEM)
    (home / "certificate.pem").write_bytes(text)
    (home / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    authorities = home / "authorities.pem"
    authorities.write_bytes(Path(certifi.where()).read_bytes() + b"\n" + text)
    return authorities


def _configuration(home: Path, content: Path, ports: dict[str, int]) -> str:
    """nginx's configuration.

    An internal redirect turns a POST into a GET. The delay is nginx's own before it refuses a request without
    a password. Neither needs a program of ours.
    """
    listed = "\n".join(f"    {kind}_temp_path {home}/{kind};" for kind in _TEMPORARY)
    plain = "location / { error_page 401 =200 /now$uri; return 401; }"
    delayed = (
        'location / { auth_basic "delay"; auth_basic_user_file /dev/null; '
        f"auth_delay {int(DELAY * 1000)}ms; error_page 401 =200 /now$uri; }}"
    )
    servers = "\n".join(
        f"    server {{ listen 127.0.0.1:{ports[network]}{' ssl' if scheme == 'https' else ''}; {entrance}\n"
        f"{_locations(content, f'{scheme}://127.0.0.1:{ports[network]}')}    }}"
        for network, scheme, entrance in (
            ("http", "http", plain),
            ("https", "https", plain),
            ("delayed", "http", delayed),
        )
    )
    return f"""\
daemon off;
worker_processes 1;
pid {home}/nginx.pid;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=100;
    types {{ image/jpeg jpg; video/mp4 mp4; }}
    default_type application/json;
    ssl_certificate {home}/certificate.pem;
    ssl_certificate_key {home}/key.pem;
{listed}
{servers}
}}
"""


_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def _locations(content: Path, address: str) -> str:
    media = f"{address}/media/$request_id"
    small = {
        "/oauth/2.0/token": {"access_token": "24.benchmark", "expires_in": 2_592_000},
        ANSWERS["simple"]: _said({"image": f"{media}/{FACE}"}),
        ANSWERS["media"]: _said(
            {
                "processVideo": [f"{media}/{VIDEO}"],
                "video": [],
                "images": [f"{media}/{name}" for name in FRAME_NAMES],
            }
        ),
        ANSWERS["stat"]: _said({"活体检测": [{"error_code": "0", "count": 1}]}),
    }
    lines = [
        f"        location = /now{path} {{ return 200 '{json.dumps(answer, ensure_ascii=False)}'; }}"
        for path, answer in small.items()
    ]
    lines += [
        f"        location = /now{ANSWERS[name]} {{ alias {content}/{name}; }}"
        for name in ("detail", "getall")
    ]
    lines.append(f"        location ~ ^/now/media/[^/]+/(?<name>.+)$ {{ alias {content}/$name; }}")
    return "\n".join(lines) + "\n"


def _said(result: dict[str, Any]) -> dict[str, Any]:
    return {"success": True, "result": result, "log_id": "1390123456789012345"}
