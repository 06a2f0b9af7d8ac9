"""Connections that end: urllib3's, with a deadline over the whole exchange and checked addresses.

The time-outs of ``socket``, urllib3 and requests start anew with every byte, so a peer that drips
headers or body holds a worker for as long as it likes. Here each read gets the time that is left.
While one of our requests is under way, urllib3's own log records (which hold whole URLs) of this
thread are dropped.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import certifi
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NameResolutionError, NewConnectionError
from urllib3.util import ssl_

from ..exceptions import UnsafeMedia

BUFFER = 64 * 1024

#: As :func:`socket.getaddrinfo`; only the addresses of the answer are used.
Resolver = Callable[..., Sequence[tuple[Any, ...]]]

POOL_CLASSES: Mapping[str, type[HTTPConnectionPool]]


@dataclass(frozen=True)
class Limits:
    """The frame of one exchange: when it must be over, and which addresses it may connect to.

    ``deadline`` is a moment of the clock ``monotonic``, both in seconds.
    """

    deadline: float
    check_address: Callable[[str], bool] | None = None
    resolver: Resolver = socket.getaddrinfo
    monotonic: Callable[[], float] = time.monotonic

    def remaining(self) -> float:
        """Seconds left. Raises :class:`TimeoutError` when there are none."""
        left = self.deadline - self.monotonic()
        if left <= 0:
            raise TimeoutError("deadline exceeded")
        return left


class _Current(threading.local):
    exchange: exchange | None = None


_current = _Current()


class ClosedOnLeaving(ABC):
    """A context manager that is closed at the end of its block."""

    @abstractmethod
    def close(self) -> None:
        """Close it. May be called twice."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class exchange:  # noqa: N801  (used like a function)
    """Within this block, requests of this thread are bound by the limits and leave no log records.

    ``with exchange(limits) as current``: ``current.response`` is the last answer that began to arrive.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.response: BoundedResponse | None = None
        self._outer: exchange | None = None

    def __enter__(self) -> Self:
        self._outer = _current.exchange
        _current.exchange = self
        return self

    def __exit__(self, *exception: object) -> None:
        _current.exchange = self._outer


def _not_ours(record: logging.LogRecord) -> bool:
    return _current.exchange is None


for _name in ("connection", "connectionpool", "poolmanager", "response", "util.retry"):
    logging.getLogger(f"urllib3.{_name}").addFilter(_not_ours)


class DeadlineReader(io.RawIOBase):
    """Reads a socket; each read times out at the deadline at the latest.

    With ``keep_partial`` a failure looks like the end of the stream and stays in ``failure``: a buffered read
    then returns the bytes that had arrived, instead of losing them with the exception.
    """

    def __init__(self, sock: Any, limits: Limits) -> None:
        super().__init__()
        self._sock = sock
        # Never read: a connection that closes its socket leaves it open as long as a file of it is open.
        self._held = sock.makefile("rb", buffering=0)
        self._receive = sock.recv_into
        self._limits = limits
        self.keep_partial = False
        self.failure: OSError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.failure is not None:
            return 0
        try:
            left = self._limits.remaining()
            timeout = self._sock.gettimeout()
            if timeout is None or left < timeout:
                self._sock.settimeout(left)
            count: int = self._receive(buffer)
        except OSError as error:
            if not self.keep_partial:
                raise
            self.failure = error
            return 0
        return count

    def close(self) -> None:
        if not self.closed:
            self._held.close()
        super().close()


class _Opened:
    """Stands in for a socket in ``http.client``: gives a file to read, here with a deadline."""

    def __init__(self, reader: DeadlineReader) -> None:
        self._reader = reader

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader, BUFFER)


class BoundedResponse(http.client.HTTPResponse):
    """An answer that is read through ``reader``; the exchange under way knows it."""

    reader: DeadlineReader

    def __init__(self, sock: Any, *args: Any, **kwargs: Any) -> None:
        self.reader = DeadlineReader(sock, _limits())
        super().__init__(_Opened(self.reader), *args, **kwargs)  # type: ignore[arg-type]
        assert _current.exchange is not None  # noqa: S101  (_limits() has checked it)
        _current.exchange.response = self


def _limits() -> Limits:
    if _current.exchange is None:
        raise RuntimeError("Connections are only used within exchange().")
    return _current.exchange.limits


class _Bounded:
    """Mixin for urllib3's connections."""

    response_class = BoundedResponse

    def _new_conn(self) -> socket.socket:
        return _connect(self, _limits())


def _connect(connection: Any, limits: Limits) -> socket.socket:
    """Resolve once, check every address, connect to one that was checked.

    The resolver keeps its own time-out: nothing in Python can bound it.

    Raises urllib3's own exceptions, and :class:`UnsafeMedia` (``address``) when any address is forbidden:
    a name that points at both a public and an internal address is an attack, not a choice.
    """
    infos: Sequence[tuple[Any, ...]] = ()
    try:
        infos = limits.resolver(connection._dns_host, connection.port, 0, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        infos = ()
    if not infos:
        raise NameResolutionError(connection.host, connection, socket.gaierror("name resolution failed"))
    if limits.check_address is not None and not all(limits.check_address(str(info[4][0])) for info in infos):
        raise UnsafeMedia("address")
    timeout = connection.timeout if isinstance(connection.timeout, int | float) else None
    for family, kind, protocol, _name, address in infos:
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError:
            # This system lacks the family, most often IPv6.
            continue
        try:
            for option in connection.socket_options or ():
                sock.setsockopt(*option)
            left = limits.remaining()
            sock.settimeout(left if timeout is None else min(left, timeout))
            sock.connect(address)
        except OSError:
            sock.close()
        else:
            return sock
    raise NewConnectionError(connection, "no address could be connected to")


class BoundedHTTPConnection(_Bounded, HTTPConnection):  # type: ignore[misc]
    """urllib3's connection within :func:`exchange`."""


class BoundedHTTPSConnection(_Bounded, HTTPSConnection):  # type: ignore[misc]
    """urllib3's TLS connection within :func:`exchange`; host name and certificate checked as ever."""


class BoundedHTTPPool(HTTPConnectionPool):
    """Pool of :class:`BoundedHTTPConnection`."""

    ConnectionCls = BoundedHTTPConnection


class BoundedHTTPSPool(HTTPSConnectionPool):
    """Pool of :class:`BoundedHTTPSConnection`."""

    ConnectionCls = BoundedHTTPSConnection


POOL_CLASSES = {"http": BoundedHTTPPool, "https": BoundedHTTPSPool}


def tls_context(ca_bundle: str | None = None) -> Any:
    """A verifying TLS context, made once per client: loading the certificates takes some 30 ms."""
    context = ssl_.create_urllib3_context()
    context.load_verify_locations(cafile=ca_bundle or certifi.where())
    return context


def bound(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """Make a pool manager use bounded connections."""
    manager.pool_classes_by_scheme = dict(POOL_CLASSES)
    return manager


def is_public_address(address: str) -> bool:
    """Whether an IP address belongs to the public Internet, embedded IPv4 addresses included.

    False for private, loopback, link-local, shared (100.64/10), multicast, reserved and unspecified
    addresses and for anything that is no address.
    """
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        embedded = _embedded(ip)
        if embedded is not None:
            return is_public_address(str(embedded))
        if ip.is_site_local:
            return False
    return ip.is_global and not (
        ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    )


_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address leads to."""
    if ip.ipv4_mapped is not None:
        return ip.ipv4_mapped
    if ip.sixtofour is not None:
        return ip.sixtofour
    if ip.teredo is not None:
        return ip.teredo[1]
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return None


def is_unicast_address(address: str) -> bool:
    """Whether an address may be connected to at all: for networks that are trusted with private addresses."""
    try:
        ip = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    return not (ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255")
