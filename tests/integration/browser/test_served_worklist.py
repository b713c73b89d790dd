"""The served worklists in a real browser: log in, mark rows by key, and what others see of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.serving.pages import Pages
from flows.serving.pages_server import serve_pages
from tests.support.browser import visit
from tests.support.prefectserver import free_port
from tests.support.worklists import DATE, NUMBER, ROWS, TOTALS, batch_row, written
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

PASSWORD = "a long password"
NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    sums = {"scored": 6, "rejected": 1, "failed": 1, "copies": 0, "refer": 3, "review": 1,
            "routine": 2}  # fmt: skip
    written(tmp_path, ROWS, TOTALS, batch_row(**sums))
    opened = open_store(str(tmp_path))
    table = schemas.rows_to_table("screening_batches", [batch_row(**sums)])
    write_table(opened, "screening_batches", table, date=NUMBER)
    return opened


@pytest.fixture
def url(store: Store) -> Iterator[str]:
    with serve_pages(Pages(store, PASSWORD), "127.0.0.1", free_port()) as address:
        yield address


def log_in(page, who: str, password: str = PASSWORD) -> None:
    page.get_by_label("Your initials").fill(who)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Log in").click()


@pytest.mark.parametrize("width", [390, 1400])
def test_readers_log_in_mark_rows_and_see_each_other(
    browser, store: Store, url: str, width: int
) -> None:
    visited = visit(browser, f"{url}/screening/{DATE}/", width)
    page = visited.page
    try:
        assert page.url == f"{url}/login"
        assert not visited.overflows()
        visited.complaints.clear()
        log_in(page, "AB", "wrong password")
        page.get_by_text("Wrong password.").wait_for()
        visited.complaints.clear()  # the browser notes the refusal
        log_in(page, "AB")
        page.get_by_role("link", name=DATE, exact=True).click()
        page.locator("#tools").wait_for()
        assert not visited.overflows()
        assert page.input_value("#who") == "AB"
        assert page.locator("#who").get_attribute("readonly") is not None
        page.keyboard.press("j")
        page.keyboard.press("a")
        page.locator(".case.seen").wait_for()
        page.keyboard.press("c")
        page.fill("#remark-text", NASTY)
        page.get_by_text("Keep", exact=True).click()
        page.get_by_text(NASTY).wait_for()
        page.reload()
        assert page.locator(".case.seen [data-key=a]").get_attribute("aria-pressed") == "true"
        page.goto(url)
        assert page.get_by_text("refer: 1 of 1 verdict agree, on 1 of 3 images").count() == 1
        page.get_by_role("button", name="Log out").click()
        log_in(page, "CD")
        page.goto(f"{url}/screening/{DATE}/")
        assert page.locator(".case.seen").count() == 0
        assert page.get_by_text("AB agrees").is_visible()
        assert page.get_by_text(NASTY).is_visible()
        assert page.locator("[src=x]").count() == 0
        assert visited.complaints == []
        assert all(each.startswith(url) for each in visited.requests)
    finally:
        page.context.close()
    said = [(row["who"], row["what"]) for row in read_table(store, "feedback").to_pylist()]
    assert sorted(said) == [("AB", "agree"), ("AB", "comment")]


def test_a_mark_that_is_not_kept_is_said(browser, url: str) -> None:
    visited = visit(browser, url)
    page = visited.page
    try:
        log_in(page, "AB")
        page.goto(f"{url}/screening/{DATE}/")
        page.context.clear_cookies()
        page.keyboard.press("j")
        page.keyboard.press("s")
        page.get_by_text("Not kept: you are logged out").wait_for()
        assert page.locator(".case.seen").count() == 0
    finally:
        page.context.close()
