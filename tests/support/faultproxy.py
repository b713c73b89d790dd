"""A proxy in front of an S3 server that misbehaves as it is told.

It forwards requests unchanged, the Host header too: a client signs for the host it speaks to, and
the server checks the signature against the Host header it is sent.
"""

import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from tests.support.s3server import S3Server

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Request:
    """What a fault may look at."""

    number: int
    """Of all that came, from 0."""
    method: str
    path: str
    """With its query."""


Fault = Callable[["Exchange"], None]
"""Deals with a request in place of the server, or with the server's help."""


@dataclass
class Rule:
    """A fault, and which requests meet it."""

    fault: Fault
    match: Callable[[Request], bool]
    left: float = float("inf")
    """How many more."""


@dataclass
class Exchange:
    """One request on its way, with what a fault may do to it."""

    client: socket.socket
    upstream: tuple[str, int]
    request: Request
    raw: bytes
    """The whole request, body and all."""

    def forwarded(self) -> bytes:
        """The server's whole answer."""
        with socket.create_connection(self.upstream, timeout=60) as server:
            server.sendall(self.raw)
            return _message(server, answers_to=self.request.method) or b""

    def pass_on(self) -> None:
        """Be honest."""
        self.client.sendall(self.forwarded())

    def reset(self) -> None:
        """Cut the connection so that the client meets an RST."""
        self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.client.close()


def answers(status: int, code: str) -> Fault:
    """An error of S3's in place of the server's answer; the server never hears of the request."""

    def act(exchange: Exchange) -> None:
        body = (
            f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code>'
            f"<Message>made up by the proxy</Message><RequestId>0</RequestId></Error>"
        ).encode()
        head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\n"
        shown = b"" if exchange.request.method == "HEAD" else body
        exchange.client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + shown)

    return act


def cut_before(exchange: Exchange) -> None:
    """The connection is closed before the server hears of the request."""
    exchange.client.close()


def reset_before(exchange: Exchange) -> None:
    """The same with an RST."""
    exchange.reset()


def cut_after(exchange: Exchange) -> None:
    """The server does what it was asked to; its answer is lost."""
    exchange.forwarded()
    exchange.client.close()


def reset_after(exchange: Exchange) -> None:
    """The same with an RST."""
    exchange.forwarded()
    exchange.reset()


def cut_in_body(exchange: Exchange) -> None:
    """Half of the answer's body comes, then the connection is closed; without a body: no answer."""
    head, _, body = exchange.forwarded().partition(b"\r\n\r\n")
    if body:
        exchange.client.sendall(head + b"\r\n\r\n" + body[: len(body) // 2])
    exchange.client.close()


def silent(seconds: float) -> Fault:
    """Nothing is said for so long, or until the client hangs up."""

    def act(exchange: Exchange) -> None:
        exchange.client.settimeout(seconds)
        exchange.client.recv(1)
        exchange.client.close()

    return act


def slow(seconds: float, bytes_per_second: float = float("inf")) -> Fault:
    """The right answer, late, and its body (and the request's, before it) at a crawl."""

    def act(exchange: Exchange) -> None:
        time.sleep(seconds + len(exchange.raw) / bytes_per_second)
        answer = exchange.forwarded()
        for start in range(0, len(answer), _BLOCK):
            part = answer[start : start + _BLOCK]
            time.sleep(len(part) / bytes_per_second)
            exchange.client.sendall(part)

    return act


def one_of(faults: list[Fault], seed: int) -> Fault:
    """Each time another one of them, drawn at random."""
    drawn = random.Random(seed)

    def act(exchange: Exchange) -> None:
        drawn.choice(faults)(exchange)

    return act


@dataclass
class FaultProxy:
    """The proxy: what it is to do, and what it has met."""

    server: S3Server
    port: int
    rules: list[Rule] = field(default_factory=list)
    met: list[Request] = field(default_factory=list)
    at_once: int = 0
    """Requests that were under way together, at most."""
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _busy: int = 0

    @property
    def through(self) -> S3Server:
        """The server as clients of the proxy see it."""
        return replace(self.server, endpoint=f"http://127.0.0.1:{self.port}")

    def fail(
        self, fault: Fault, times: float = float("inf"), match: str = "", method: str = ""
    ) -> None:
        """Let a fault meet the next so many requests whose path (method) matches these regexes."""

        def matches(request: Request) -> bool:
            return bool(
                re.search(match, request.path) and re.fullmatch(method or ".*", request.method)
            )

        self.rules.append(Rule(fault, matches, times))

    def mend(self) -> None:
        """No more faults; somebody listens again."""
        self.rules.clear()
        if self._listener is None:
            self._listen()

    def vanish(self) -> None:
        """Close the port and all connections: nobody is there."""
        if self._listener is not None:
            # Closing alone would leave the accepting thread with the socket.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def counted(self) -> Counter[str]:
        """How many requests of each kind came."""
        return Counter(_kind(request) for request in self.met)

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=128)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self._open.add(client)
        # What clients cut and what faults cut ends a connection, not the proxy.
        with suppress(OSError), client:
            while client.fileno() >= 0 and (raw := _message(client)) is not None:
                self._deal_with(client, raw)
        with self._lock:
            self._open.discard(client)

    def _deal_with(self, client: socket.socket, raw: bytes) -> None:
        method, path, _ = raw.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        with self._lock:
            request = Request(len(self.met), method, path)
            self.met.append(request)
            rule = next((r for r in self.rules if r.left > 0 and r.match(request)), None)
            if rule is not None:
                rule.left -= 1
            self._busy += 1
            self.at_once = max(self.at_once, self._busy)
        address = urlsplit(self.server.endpoint)
        exchange = Exchange(client, (str(address.hostname), int(address.port or 80)), request, raw)
        try:
            (Exchange.pass_on if rule is None else rule.fault)(exchange)
        finally:
            with self._lock:
                self._busy -= 1


def _kind(request: Request) -> str:
    if request.method == "GET" and "list-type" in request.path:
        return "LIST"
    return request.method


def _message(source: socket.socket, answers_to: str = "") -> bytes | None:
    """One whole HTTP message as it came; None: the other side hung up before it."""
    held = b""
    while b"\r\n\r\n" not in held:
        data = source.recv(_BLOCK)
        if not data:
            return None
        held += data
        if held.endswith(b"\r\n\r\n") and b"\r\nexpect: 100-continue" in held.lower():
            source.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            held = re.sub(rb"(?i)\r\nexpect: 100-continue", b"", held)
    head, _, body = held.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1] if answers_to else b""
    if answers_to == "HEAD" or status in {b"204", b"304"}:
        return held
    parts = [body]
    if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
        while not (parts[-1].endswith(b"0\r\n\r\n") or b"".join(parts).endswith(b"\r\n0\r\n\r\n")):
            parts.append(_more(source))
    else:
        found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        left = (int(found[1]) if found else 0) - len(body)
        while left > 0:
            parts.append(_more(source))
            left -= len(parts[-1])
    return head + b"\r\n\r\n" + b"".join(parts)


def _more(source: socket.socket) -> bytes:
    data = source.recv(_BLOCK)
    if not data:
        raise ConnectionResetError
    return data


@contextmanager
def running_proxy(server: S3Server) -> Iterator[FaultProxy]:
    """A proxy on a port of its own, honest until it is told otherwise."""
    proxy = FaultProxy(server, 0)
    proxy.mend()
    try:
        yield proxy
    finally:
        proxy.vanish()
