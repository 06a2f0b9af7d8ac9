"""A small SMTP server on loopback: takes mail, refuses by address, or breaks off."""

from __future__ import annotations

import socketserver
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from threading import Thread
from typing import Any, Self


@dataclass
class Delivered:
    """One accepted message and the addresses of its envelope."""

    recipients: list[str]
    message: EmailMessage = field(repr=False)


class SmtpServer:
    """A context manager; ``replies`` maps an address to what RCPT answers, "" to hanging up."""

    def __init__(self) -> None:
        self.delivered: list[Delivered] = []
        self.replies: dict[str, str] = {}
        self._server = _Server(("127.0.0.1", 0), _Conversation)
        self._server.smtp = self
        self.port = int(self._server.server_address[1])
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def reached(self) -> list[str]:
        """Everybody who got a mail, in order."""
        return [address for item in self.delivered for address in item.recipients]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    smtp: SmtpServer


class _Conversation(socketserver.StreamRequestHandler):
    server: Any
    timeout = 10

    def handle(self) -> None:
        smtp: SmtpServer = self.server.smtp
        recipients: list[str] = []
        self._say("220 test")
        while line := self.rfile.readline().decode("ascii").strip():
            verb = line.partition(" ")[0].upper()
            if verb == "RCPT":
                address = line.partition("<")[2].partition(">")[0]
                reply = smtp.replies.get(address, "250 ok")
                if not reply:
                    return
                if reply.startswith("250"):
                    recipients.append(address)
                self._say(reply)
            elif verb == "DATA":
                self._say("354 go on")
                content = self._content()
                message = message_from_bytes(content, policy=policy.default)
                assert isinstance(message, EmailMessage)
                smtp.delivered.append(Delivered(recipients, message))
                recipients = []
                self._say("250 ok")
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 test")

    def _content(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode("ascii"))
