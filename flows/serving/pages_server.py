"""The pages of `thyro serve` in a thread, and a record in the store of where they are."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit
from urllib.request import urlopen

import uvicorn

from flows.serving.pages import Pages
from flows.serving.server import is_loopback, must_be_free, name_in_url
from thyro_core.errors import InputError, ThyroError
from thyro_core.store.keys import pages_key
from thyro_core.store.retry import poll_until
from thyro_core.store.store import WRITE_ERRORS, Store

_START_SECONDS, _END_SECONDS, _LOOK_SECONDS = 30.0, 10.0, 3.0
_TICK = 0.05


def check_access(host: str, password: str | None) -> None:
    """Make sure that pages which others can reach ask for a password.

    Raises:
        InputError: they would not, or the password is short.
    """
    if password is None and not is_loopback(host):
        msg = (
            f"--pages-host {host}: expected THYRO_PAGES_PASSWORD where others can reach the pages, "
            "found none; set it, or leave the pages on 127.0.0.1"
        )
        raise InputError(msg)
    if password is not None and len(password) < 8:
        msg = (
            f"THYRO_PAGES_PASSWORD: expected at least 8 letters, found {len(password)}; "
            "`openssl rand -base64 12` makes one"
        )
        raise InputError(msg)


@contextmanager
def serve_pages(pages: Pages, host: str, port: int) -> Iterator[str]:
    """Serve the pages as long as the block lasts; their address.

    Raises:
        InputError: the port is taken, or `check_access` refuses.
        ThyroError: they did not start.
    """
    check_access(host, pages.password)
    must_be_free(host, port, "--pages-port or --pages-host")
    config = uvicorn.Config(
        pages.app(), host=host, port=port, log_config=None, access_log=False, server_header=False,
        proxy_headers=False, ws="none", lifespan="off", timeout_graceful_shutdown=3,
    )  # fmt: skip
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, name="thyro-pages", daemon=True)
    thread.start()
    with suppress(TimeoutError):
        poll_until(lambda: server.started or not thread.is_alive(), _TICK, _START_SECONDS)
    if not server.started:
        msg = f"{host}:{port}: the pages did not start; choose another --pages-port"
        raise ThyroError(msg)
    url = f"http://{name_in_url(host)}:{port}"
    # A store that takes no record still has its pages served.
    with suppress(*WRITE_ERRORS):
        record = {"url": url, "token": pages.token}
        pages.store.write(pages_key(), json.dumps(record).encode())
    try:
        yield url
    finally:
        with suppress(*WRITE_ERRORS):
            pages.store.delete(pages_key())
        server.should_exit = True
        thread.join(_END_SECONDS)


def served_address(store: Store, date: str) -> str | None:
    """Where a night's page is served now; None: nowhere that answers from here."""
    try:
        record = json.loads(store.read(pages_key()))
        url, token = str(record["url"]), str(record["token"])
        if urlsplit(url).scheme != "http":
            return None
        with urlopen(f"{url}/health", timeout=_LOOK_SECONDS) as reply:  # noqa: S310 - http
            answer = json.loads(reply.read(1000))
    except (*WRITE_ERRORS, ValueError, KeyError, TypeError):
        return None  # no record, or one of a server that is gone
    return f"{url}/screening/{date}/" if answer == {"thyro_pages": token} else None
