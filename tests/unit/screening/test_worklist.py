"""The worklist: order, words and totals in the CSV and the page, and the page in a real browser."""

import base64
import csv
import io
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from tests.support.browser import visit
from thyro_core import NOTICE
from thyro_core.screening import worklist
from thyro_core.screening.rules import WHY, Totals, rank_key, unscored
from thyro_core.screening.store import PICTURES
from thyro_core.screening.worklist import MOST_ROWS, REFERRED, why, worklist_page, write_worklist
from thyro_core.store.keys import pictures_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table

DATE, NUMBER = "2026-11-25", 20261125
NASTY = '"><script>alert(1)</script>&amp;'


def jpeg(shade: int = 90) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (384, 144), (shade, shade, shade)).save(buffer, "JPEG")
    return buffer.getvalue()


def row(number: int, band: str, mean: float | None = None, **more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(schemas.TABLES["screening"].schema.names)
    said = {
        "date": NUMBER,
        "batch_id": "n1",
        "batch": "s3://night",
        "image_id": f"{number:064x}",
        "file_id": f"{number:064x}",
        "frame": 0,
        "model_id": "b1",
        "burned_in": False,
    }
    if band == "not scored":
        return empty | said | unscored(more.get("reason", "blurred")) | more
    scored = {
        "status": "scored",
        "band": band,
        "prob_malignant": mean,
        "sd": 0.05,
        "rank_key": rank_key(band, mean),
    }
    return empty | said | scored | more


def batch_row(**more: Any) -> dict[str, Any]:
    empty: dict[str, Any] = dict.fromkeys(schemas.TABLES["screening_batches"].schema.names)
    said = {"date": NUMBER, "batch_id": "n1", "batch": "s3://night", "model_id": "b1",
            "received": 8, "known": 3, "late": 2}  # fmt: skip
    return empty | said | more


ROWS = [
    row(1, "routine", 0.1),
    row(2, "refer", 0.7, patient_id="q0123456789abcdef"),
    row(3, "not scored", reason="doppler_colour", detail="share of coloured pixels 0.3"),
    row(4, "refer", 0.9),
    row(5, "review", 0.45, reason="uncertain"),
    row(6, "refer", 0.8, burned_in=True),
    row(7, "not scored", reason="crashed_decoder"),
    row(8, "routine", 0.2, sd=float("nan")),
]
TOTALS = Totals(8, 6, 1, 1, 3, 1, 2)
ORDER = [4, 6, 2, 5, 3, 7, 8, 1]


def fill(store: Store, rows: list[dict[str, Any]], *batches: dict[str, Any]) -> pa.Table:
    """Parts of both tables, and pictures of the referred."""
    for batch in batches:
        own = [each for each in rows if each["batch_id"] == batch["batch_id"]]
        table = schemas.rows_to_table("screening", own)
        write_table(store, "screening", table, date=NUMBER, batch_id=batch["batch_id"])
        shown = [
            {"image_id": each["image_id"], "picture": jpeg()}
            for each in own
            if each["band"] == "refer" and not each["burned_in"]
        ]
        buffer = io.BytesIO()
        pa.parquet.write_table(pa.Table.from_pylist(shown, schema=PICTURES), buffer)
        store.write(pictures_key(DATE, batch["batch_id"]), buffer.getvalue())
    return schemas.rows_to_table("screening_batches", list(batches))


def made(folder: Path, rows: list[dict[str, Any]], totals: Totals, *batches: Any) -> Path:
    store = open_store(str(folder))
    table = fill(store, rows, *batches)
    parts = store.keys("tables/screening")
    write_worklist(store, DATE, parts, totals, table)
    return Path(store.path(f"screening/{DATE}"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("list"), ROWS, TOTALS, batch_row())


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "worklist.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_ranks_every_image(folder: Path) -> None:
    rows = listed(folder)
    assert [int(each["image_id"], 16) for each in rows] == ORDER
    assert [each["rank"] for each in rows] == [str(i) for i in range(1, 9)]
    assert rows[0] == rows[0] | {
        "band": "refer", "prob_malignant": "0.9", "sd": "0.05", "why": REFERRED, "notice": NOTICE,
        "name": "", "patient_id": "", "model_id": "b1", "batch": "s3://night",
    }  # fmt: skip
    assert rows[2]["patient_id"] == "q0123456789abcdef"
    assert rows[4] == rows[4] | {
        "band": "not scored", "status": "rejected", "reason": "doppler_colour",
        "why": WHY["doppler_colour"], "prob_malignant": "",
        "detail": "share of coloured pixels 0.3",
    }  # fmt: skip
    assert (rows[5]["status"], rows[7]["why"]) == ("failed", "")


def test_why_in_words() -> None:
    assert [why(each) for each in ROWS[:3]] == ["", REFERRED, WHY["doppler_colour"]]
    assert why(ROWS[4]) == WHY["uncertain"]


def test_nothing_on_the_page_is_markup_but_the_page_itself() -> None:
    rows = [
        {**row(1, "refer", 0.9, name=NASTY, detail=NASTY, patient_id=NASTY), "rank": 1},
        {**row(2, "not scored", detail=NASTY, name=NASTY), "rank": 2},
    ]
    page = worklist_page(DATE, rows, {}, TOTALS, [batch_row(batch=NASTY, breaches=NASTY)])
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_a_long_night_is_cut_and_says_so(tmp_path: Path) -> None:
    routine = MOST_ROWS["routine"] + 5
    rows = [row(i, "routine", i / 1000) for i in range(routine)] + [row(999, "refer", 0.9)]
    totals = Totals(routine + 1, routine + 1, 0, 0, 1, 0, routine)
    folder = made(tmp_path, rows, totals, batch_row())
    page = (folder / "worklist.html").read_text()
    assert f"The first 200 of {routine} are shown; worklist.csv has all." in page
    assert page.count("<li class=") == 201
    assert len(listed(folder)) == routine + 1
    # The ones left out are the least probable.
    assert f"{5:064x}" in page
    assert f"{4:064x}" not in page


def test_only_the_first_have_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worklist, "MOST_PICTURES", 2)
    rows = [row(i, "refer", 0.5 + i / 100) for i in range(4)]
    folder = made(tmp_path, rows, Totals(4, 4, 0, 0, 4, 0, 0), batch_row())
    page = (folder / "worklist.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert page.count("only the first 2 have one") == 2
    assert page.index("data:image/jpeg") < page.index("only the first 2")


def test_batches_of_one_night_share_a_worklist(tmp_path: Path) -> None:
    rows = [row(1, "refer", 0.6), row(2, "refer", 0.8, batch_id="n2", model_id="b2")]
    batches = [
        batch_row(),
        batch_row(batch_id="n2", model_id="b2", breaches="psi_score,mmd"),
    ]
    folder = made(tmp_path, rows, Totals(2, 2, 0, 0, 2, 0, 0), *batches)
    assert [(each["image_id"][-1], each["model_id"]) for each in listed(folder)] == [
        ("2", "b2"), ("1", "b1"),
    ]  # fmt: skip
    page = (folder / "worklist.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert page.count("Trust the order less") == 2
    assert "made for: psi_score." in page
    assert "6 files were passed over" in page


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
        assert sums == [8, 6, 1, 1]
        check = page.locator("[data-check]").inner_text()
        assert "8 received = 6 scored + 1 rejected + 1 failed" in check
        assert "3 files were passed over" in check
        assert "2 files could not be read whole" in check
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


def test_the_pictures_are_the_stored_ones(folder: Path) -> None:
    page = (folder / "worklist.html").read_text()
    urls = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert [base64.b64decode(url) for url in urls] == [jpeg(), jpeg()]
