"""A real headless Chromium for tests of pages; without one they skip and say so."""

import gc
import shutil
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_BINARIES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@dataclass
class Visit:
    """A page in the browser, and what it did that a page should not do unasked."""

    page: "Page"
    complaints: list[str] = field(default_factory=list)
    """Console errors and warnings, and uncaught exceptions."""
    requests: list[str] = field(default_factory=list)
    """Every address asked for but `data:` ones."""

    def overflows(self) -> bool:
        """Whether the page is wider than its window."""
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        return bool(self.page.evaluate(wider))

    def broken_images(self) -> list[str]:
        """The start of the address of each image that did not load."""
        # Decoding an image waits for it, wherever on the page it stands.
        script = """async () => {
            const images = [...document.images];
            const whole = await Promise.allSettled(images.map(image => image.decode()));
            return images.filter((image, i) => whole[i].status !== "fulfilled")
                .map(image => image.src.slice(0, 80));
        }"""
        found: list[str] = self.page.evaluate(script)
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """One Chromium for a module's tests.

    Not for the session: while it is open this thread has a running event loop, in which Prefect's
    functions return coroutines instead of doing their work.
    """
    from playwright.sync_api import sync_playwright

    found = next((path for name in _BINARIES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: install Debian's `chromium` (looked for {', '.join(_BINARIES)})")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=list(_OPTIONS))
        yield started
        started.close()
    # Playwright leaves its loop's pipes to the garbage collector, which would blame a later test.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def visit(browser: "Browser", address: Path | str, width: int = 1400, **context: Any) -> Visit:
    """Open a file or an address; the caller closes `page.context`.

    Args:
        browser: from the fixture.
        address: a file's path or a URL.
        width: of the window [pixels].
        context: further options of a context, such as `color_scheme="dark"`.
    """
    url = address.resolve().as_uri() if isinstance(address, Path) else address
    page = browser.new_context(viewport={"width": width, "height": 900}, **context).new_page()
    found = Visit(page)
    page.on("console", lambda said: _note(found, said.type, said.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda asked: _asked(found, asked.url))
    page.goto(url)
    return found


def _note(found: Visit, kind: str, text: str) -> None:
    if kind in {"error", "warning"}:
        found.complaints.append(f"{kind}: {text}")


def _asked(found: Visit, url: str) -> None:
    if not url.startswith("data:"):
        found.requests.append(url)
