"""The worklists as web pages: the nights, each night's page, and what readers say of its rows.

One password lets in; without one only this machine is served. Sessions live in this process alone.
"""

import hmac
import json
import secrets
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from time import monotonic
from urllib.parse import parse_qs

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
)
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from thyro_core.errors import InputError
from thyro_core.reporting.nights import Reader, login_page, nights_page, served_worklist
from thyro_core.reporting.worklist import page_policy
from thyro_core.screening.feedback import FeedbackEvent, add_feedback
from thyro_core.screening.identifiers import StudyBook, study_address
from thyro_core.screening.rules import date_number
from thyro_core.store.keys import worklist_key
from thyro_core.store.store import Store

COOKIE = "thyro_session"
"""Name of the cookie that holds a session's token."""

MOST_BYTES = 16_384
"""Largest body of a request [bytes]."""

SESSION_SECONDS = 12 * 3600.0
"""How long a login lasts [s]."""

_MOST_SESSIONS = 1000
_MOST_FAILURES, _FAILURE_SECONDS = 10, 60.0
_HEADERS = {
    "Content-Security-Policy": f"{page_policy(is_served=True)}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not no-referrer: with it a browser names no origin for its own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass
class Session:
    """A browser that was here."""

    csrf: str
    until: float
    """When it ends, by the clock of `Pages`."""
    is_in: bool
    """Whether it gave the password, or needs none."""
    who: str = ""

    @property
    def rank(self) -> tuple[bool, float]:
        """Among the sessions, which goes first where there are too many."""
        return self.is_in, self.until


@dataclass
class Pages:
    """The pages of one store.

    Attributes:
        store: whose nights they are.
        password: what lets in; None: everybody who reaches them is in.
        viewer: pattern of a viewer's addresses.
        links: pattern of a viewer's addresses of studies, and the file that knows these; None: rows
            have no such link.
        names: names, besides this machine's own and bare addresses, by which they are reached.
        token: tells these pages from others at the same address.
    """

    store: Store
    password: str | None = None
    viewer: str | None = None
    names: tuple[str, ...] = ()
    links: tuple[str, StudyBook] | None = None
    token: str = field(default_factory=partial(secrets.token_hex, 16))
    _sessions: dict[str, Session] = field(default_factory=dict)
    _failures: list[float] = field(default_factory=list)

    def app(self) -> ASGIApp:
        """What a server runs."""
        routes = [
            Route("/", self._nights),
            Route("/health", self._health),
            Route("/login", self._ask),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
            Route("/screening/{date}", self._to_worklist),
            Route("/screening/{date}/", self._worklist),
            Route("/screening/{date}/worklist.csv", self._csv),
            Route("/screening/{date}/study/{exam}", self._study),
            Route("/screening/{date}/feedback", self._feedback, methods=["POST"]),
        ]
        own = {"localhost", socket.gethostname().lower(), socket.getfqdn().lower(), *self.names}
        return Guard(Starlette(routes=routes), frozenset(own))

    def _session(self, request: Request) -> Session | None:
        session = self._sessions.get(request.cookies.get(COOKIE, ""))
        return session if session is not None and session.until > monotonic() else None

    def _open(self, *, is_in: bool, who: str = "") -> tuple[str, Session]:
        """A new session and its token."""
        now = monotonic()
        self._sessions = {key: each for key, each in self._sessions.items() if each.until > now}
        if len(self._sessions) >= _MOST_SESSIONS:
            # Whoever only asks for the login form must not push out those who are in.
            oldest = min(self._sessions, key=lambda key: self._sessions[key].rank)
            del self._sessions[oldest]
        token = secrets.token_urlsafe(32)
        session = Session(secrets.token_urlsafe(32), now + SESSION_SECONDS, is_in, who)
        self._sessions[token] = session
        return token, session

    async def _page_for(
        self, request: Request, page: Callable[[Session], Awaitable[Response]]
    ) -> Response:
        """A page for who is in; the others get the login form."""
        session = self._session(request)
        if session is not None and session.is_in:
            return await page(session)
        if self.password is not None:
            return RedirectResponse("/login", 303)
        token, session = self._open(is_in=True)
        return _with_cookie(await page(session), request, token)

    async def _nights(self, request: Request) -> Response:
        async def page(session: Session) -> Response:
            make = partial(nights_page, has_password=self.password is not None)
            return HTMLResponse(await run_in_threadpool(make, self.store, session.csrf))

        return await self._page_for(request, page)

    async def _health(self, _: Request) -> Response:
        return JSONResponse({"thyro_pages": self.token})

    async def _ask(self, request: Request, fault: str = "", status: int = 200) -> Response:
        token, session = self._open(is_in=False)
        return _with_cookie(HTMLResponse(login_page(session.csrf, fault), status), request, token)

    async def _log_in(self, request: Request) -> Response:
        session, values = self._session(request), await _form(request)
        if session is None or not _equal(values.get("csrf", ""), session.csrf):
            return await self._ask(request, "The form was too old: try again.", 403)
        now = monotonic()
        self._failures = [each for each in self._failures if each > now - _FAILURE_SECONDS]
        if len(self._failures) >= _MOST_FAILURES:
            return await self._ask(request, "Too many wrong passwords: wait a minute.", 429)
        typed_password, who = values.get("password", ""), values.get("who", "").strip()[:40]
        if self.password is None or not _equal(typed_password, self.password):
            self._failures.append(now)
            return await self._ask(request, "Wrong password.", 403)
        if not who:
            return await self._ask(request, "Give your initials.", 400)
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        # A new token: one that somebody else may have set before is worth nothing now.
        token, _ = self._open(is_in=True, who=who)
        return _with_cookie(RedirectResponse("/", 303), request, token)

    async def _log_out(self, request: Request) -> Response:
        session, values = self._session(request), await _form(request)
        if session is None or not _equal(values.get("csrf", ""), session.csrf):
            return PlainTextResponse("the form was too old: load the page anew", 403)
        self._sessions.pop(request.cookies.get(COOKIE, ""), None)
        return RedirectResponse("/", 303)

    async def _to_worklist(self, request: Request) -> Response:
        date = _path_date(request)
        return _no_night() if date is None else RedirectResponse(f"/screening/{date}/", 303)

    async def _worklist(self, request: Request) -> Response:
        date = _path_date(request)

        async def page(session: Session) -> Response:
            if date is None:
                return _no_night()
            who = Reader(session.csrf, session.who, has_study_links=self.links is not None)
            make = partial(served_worklist, self.store, date, who, viewer=self.viewer)
            text = await run_in_threadpool(make)
            return _no_night() if text is None else HTMLResponse(text)

        return await self._page_for(request, page)

    async def _csv(self, request: Request) -> Response:
        date = _path_date(request)

        async def page(_: Session) -> Response:
            key = worklist_key(date or "", "csv")
            if date is None or not await run_in_threadpool(self.store.exists, key):
                return _no_night()
            name = f'attachment; filename="worklist-{date}.csv"'
            data = await run_in_threadpool(self.store.read, key)
            return Response(data, media_type="text/csv", headers={"Content-Disposition": name})

        return await self._page_for(request, page)

    async def _study(self, request: Request) -> Response:
        """To the viewer: the page names the exam's pseudonym alone."""
        exam = str(request.path_params["exam"])

        async def page(_: Session) -> Response:
            if self.links is None:
                return _no_study()
            pattern, book = self.links
            try:
                address = await run_in_threadpool(study_address, book, pattern, exam)
            except InputError as error:
                return PlainTextResponse(str(error), 503)
            return _no_study() if address is None else RedirectResponse(address, 303)

        return await self._page_for(request, page)

    async def _feedback(self, request: Request) -> Response:
        session, date = self._session(request), _path_date(request)
        if session is None or not session.is_in:
            return PlainTextResponse("you are logged out: load the page anew", 401)
        if not _equal(request.headers.get("x-csrf-token", ""), session.csrf):
            return PlainTextResponse("the page was too old: load it anew", 403)
        if date is None:
            return _no_night()
        try:
            value = json.loads(await request.body())
            # The server's clock, and who logged in: a page may claim neither.
            value |= {"said_at": datetime.now(UTC).isoformat(), "who": session.who or value["who"]}
            event = FeedbackEvent.model_validate_json(json.dumps(value))
            await run_in_threadpool(add_feedback, self.store, date, [event])
        except InputError as error:
            return PlainTextResponse(str(error), 400)
        except (ValueError, TypeError, KeyError, RecursionError):  # pydantic's, too
            return PlainTextResponse("expected what a worklist's page posts, found other data", 400)
        return JSONResponse(event.model_dump(mode="json"))


class Guard:
    """Lets a request through only to a known name, from its own pages, of a bounded size."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, with headers that keep the page to itself."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)

        async def send_guarded(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                headers = [(k.lower().encode(), v.encode()) for k, v in _HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *headers]  # type: ignore[misc]
            await send(message)

        refusal = self._refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send_guarded)  # type: ignore[arg-type]
            return
        body = b""
        if request.method == "POST":
            async for piece in request.stream():
                body += piece
                if len(body) > MOST_BYTES:
                    text = f"expected at most {MOST_BYTES} bytes"
                    await PlainTextResponse(text, 413)(scope, receive, send_guarded)  # type: ignore[arg-type]
                    return

        async def again() -> dict[str, object]:
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send_guarded)  # type: ignore[arg-type]

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        # A foreign name that leads here is another site's (DNS rebinding); a bare address is not.
        if not self._is_own(_name_of(host)):
            text = f"this name is not served; set THYRO_PAGES_NAMES, or use {_name_of('localhost')}"
            return PlainTextResponse(text, 421)
        if request.method != "POST":
            return None
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return PlainTextResponse("a post from another site is refused", 403)
        return None

    def _is_own(self, name: str) -> bool:
        try:
            ip_address(name)
        except ValueError:
            return name in self._names
        return True


def _with_cookie(response: Response, request: Request, token: str) -> Response:
    response.set_cookie(
        COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https"
    )
    return response


async def _form(request: Request) -> dict[str, str]:
    """The first value of each field of a form."""
    fields = parse_qs((await request.body()).decode("utf-8", "replace"), max_num_fields=20)
    return {name: values[0] for name, values in fields.items()}


def _no_night() -> Response:
    return PlainTextResponse("no such night", 404)


def _no_study() -> Response:
    return PlainTextResponse("this exam's study is not known here: find it in the archive", 404)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port and an IPv6 address's brackets."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name.strip("[]").lower()


def _path_date(request: Request) -> str | None:
    """The date in the address, if it is one."""
    text = str(request.path_params["date"])
    try:
        date_number(text)
    except InputError:
        return None
    return text


def _equal(one: str, other: str) -> bool:
    """Compare in a time that does not tell how much is right."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))
