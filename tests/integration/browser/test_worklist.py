"""The worklist's page in a real browser."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Visit, visit
from tests.support.worklists import ORDER, ROWS, TOTALS, batch_row, row, written
from thyro_core import NOTICE
from thyro_core.screening.feedback import parse_feedback
from thyro_core.screening.rules import Totals

NASTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("list"), ROWS, TOTALS, batch_row())


def shown_ranks(found: Visit) -> list[str]:
    return found.page.eval_on_selector_all(
        ".case", "all => all.filter(e => e.checkVisibility()).map(e => e.dataset.rank)"
    )


def events(found: Visit) -> list[dict[str, Any]]:
    script = "Object.entries(localStorage).filter(e => e[0].startsWith('thyro-feedback'))"
    kept = found.page.evaluate(script)
    return json.loads(kept[0][1]) if kept else []


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
        page.keyboard.press("?")
        assert page.get_by_text("next row").is_visible()
        assert not found.overflows()
        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", paper)[:3])) / 3 > 128
        assert light == (scheme == "light")
    finally:
        page.context.close()


def test_without_script_it_is_a_ranked_list(browser, folder: Path) -> None:
    found = visit(browser, folder / "worklist.html", java_script_enabled=False)
    try:
        assert not found.page.locator("#tools").is_visible()
        assert not found.page.locator("dialog").first.is_visible()
        ranks = found.page.locator(".case > .rank").all_inner_texts()
        assert ranks[:6] == ["1", "2", "3", "4", "5", "6"]
        assert found.page.locator("img").first.is_visible()
    finally:
        found.page.context.close()


def test_it_prints_on_white_without_its_tools(browser, folder: Path) -> None:
    found = visit(browser, folder / "worklist.html", color_scheme="dark")
    try:
        found.page.emulate_media(media="print", color_scheme="dark")
        paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert not found.page.locator("#tools").is_visible()
        assert not found.page.locator(".marks button").first.is_visible()
    finally:
        found.page.context.close()


def test_rows_are_found_filtered_and_put_in_order(browser, tmp_path: Path) -> None:
    rows = [
        row(1, "refer", 0.9, name="b/last.png", exam_id="f1", path_id="1"),
        row(2, "refer", 0.8, name="a/first.png", exam_id="f2", path_id="2"),
        row(3, "review", 0.4, reason="uncertain", name="c/mid.png", exam_id="f3", path_id="3"),
        row(4, "routine", 0.1, name="a/other.png", exam_id="f2", path_id="4"),
    ]
    folder = written(tmp_path, rows, Totals(4, 4, 0, 0, 2, 1, 1), batch_row())
    found = visit(browser, folder / "worklist.html")
    page = found.page
    try:
        assert shown_ranks(found) == ["1", "2", "4", "3"]
        page.fill("#find", "FIRST")
        assert shown_ranks(found) == ["2"]
        assert page.locator("#count").inner_text() == "1 of 4 rows"
        assert page.locator("section[data-band=review]").is_hidden()
        page.fill("#find", "")
        page.select_option("#band", "routine")
        assert shown_ranks(found) == ["4"]
        page.select_option("#band", "")
        page.select_option("#order", "name")
        assert shown_ranks(found) == ["2", "4", "1", "3"], "within a band"
        page.select_option("#order", "low")
        assert shown_ranks(found) == ["2", "4", "1", "3"]
        page.select_option("#order", "rank")
        assert shown_ranks(found) == ["1", "2", "4", "3"]
        page.fill("#who", "AB")
        page.locator(".case").nth(1).get_by_text("Seen", exact=True).click()
        page.select_option("#state", "unseen")
        assert shown_ranks(found) == ["1", "4", "3"]
        page.select_option("#state", "seen")
        assert shown_ranks(found) == ["2"]
        assert found.complaints == []
    finally:
        page.context.close()


def test_keys_move_enlarge_and_mark(browser, folder: Path) -> None:
    found = visit(browser, folder / "worklist.html")
    page = found.page
    try:
        page.fill("#who", "AB")
        page.keyboard.press("s")
        assert page.input_value("#who") == "ABs", "who writes is not interrupted"
        page.fill("#who", "AB")
        page.locator("h1").click()
        page.keyboard.press("j")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("k")
        assert page.evaluate("document.activeElement.dataset.rank") == "1"
        page.keyboard.press("Enter")
        assert page.locator("#zoom").is_visible()
        opacity = "getComputedStyle(document.querySelector('.stack .map')).opacity"
        assert page.evaluate(opacity) == "0.6"
        page.keyboard.press("+")
        assert page.evaluate(opacity) == "0.7"
        page.keyboard.press("m")
        assert page.evaluate(opacity) == "0"
        page.locator("#fade").fill("100")
        assert page.evaluate(opacity) == "1"
        page.keyboard.press("a")
        page.keyboard.press("j")
        assert page.locator("#zoom").get_by_text("it may show a name").is_visible()
        page.keyboard.press("d")
        page.keyboard.press("d")
        page.keyboard.press("c")
        page.fill("#remark-text", NASTY)
        page.get_by_text("Keep", exact=True).click()
        page.locator("#zoom").get_by_text(NASTY).wait_for()
        page.keyboard.press("Escape")
        assert not page.locator("#zoom").is_visible()
        said = [(int(each["image_id"], 16), each["what"]) for each in events(found)]
        assert said == [(4, "agree"), (6, "disagree"), (6, "withdraw"), (6, "comment")]
        assert {each["who"] for each in events(found)} == {"AB"}
        page.reload()
        assert page.locator(".case.seen").count() == 2, "the browser keeps it"
        assert page.get_by_text(NASTY).count() == 1
        assert page.locator("[src=x]").count() == 0
        assert found.complaints == []
    finally:
        page.context.close()


def test_nobody_says_nothing_and_an_unscored_row_has_no_verdict(browser, folder: Path) -> None:
    found = visit(browser, folder / "worklist.html")
    page = found.page
    try:
        page.keyboard.press("j")
        page.keyboard.press("a")
        assert events(found) == []
        assert "Give your initials first" in page.locator("#say").inner_text()
        page.fill("#who", "AB")
        unscored = page.locator("section[data-band='not scored'] .case").first
        assert unscored.locator("button").all_inner_texts() == ["Seen", "Comment"]
        unscored.focus()
        page.keyboard.press("d")
        assert events(found) == []
    finally:
        page.context.close()


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_feedback_is_saved_as_a_file(browser, folder: Path, tmp_path: Path, kind: str) -> None:
    found = visit(browser, folder / "worklist.html")
    page = found.page
    try:
        page.fill("#who", "=AB")
        page.locator(".case").first.get_by_text("Disagree").click()
        with page.expect_download() as waiting:
            page.locator(f"#save-{kind}").click()
        saved = tmp_path / f"feedback.{kind}"
        waiting.value.save_as(saved)
        assert waiting.value.suggested_filename == f"thyro-feedback-2026-11-25.{kind}"
        date, (said,) = parse_feedback(saved.read_bytes(), saved.name)
        assert (date, said.who, said.what) == ("2026-11-25", "=AB", "disagree")
        assert kind == "json" or '"\'=AB","disagree",""' in saved.read_text()
        assert found.complaints == []
    finally:
        page.context.close()
