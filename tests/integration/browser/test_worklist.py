"""The worklist's page in a real browser."""

import re
from pathlib import Path

import pytest

from tests.support.browser import visit
from tests.support.worklists import ORDER, ROWS, TOTALS, batch_row, written
from thyro_core import NOTICE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("list"), ROWS, TOTALS, batch_row())


@pytest.mark.parametrize("width", [390, 1400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(browser, folder: Path, width: int, scheme: str) -> None:
    found = visit(browser, folder / "worklist.html", width, color_scheme=scheme)
    page = found.page
    try:
        assert (found.complaints, found.broken_images()) == ([], [])
        assert found.requests == [(folder / "worklist.html").as_uri()]
        assert not found.overflows()
        ids = page.eval_on_selector_all("[data-image]", "all => all.map(e => e.dataset.image)")
        assert [int(each, 16) for each in ids] == ORDER
        assert page.locator("img").count() == 2
        assert page.locator("[role=note]").first.inner_text() == NOTICE
        sums = page.eval_on_selector_all("[data-total]", "all => all.map(e => +e.textContent)")
        assert sums == [8, 6, 1, 1, 0]
        check = page.locator("[data-check]").inner_text()
        assert "8 received = 6 scored + 1 rejected + 1 failed + 0 copies" in check
        assert page.get_by_text("13 files = 8 read + 3 passed over + 2 not whole").count() == 1
        routine = page.locator("section[data-band=routine] li").first
        assert not routine.is_visible()
        page.locator("summary").click()
        assert routine.is_visible()
        assert not found.overflows()
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3 > 128
        assert light == (scheme == "light")
    finally:
        page.context.close()


def test_it_prints_on_white(browser, folder: Path) -> None:
    found = visit(browser, folder / "worklist.html", color_scheme="dark")
    try:
        found.page.emulate_media(media="print", color_scheme="dark")
        paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
    finally:
        found.page.context.close()
