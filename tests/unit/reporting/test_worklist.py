"""The worklist's page: what it shows of a night, and what it says it leaves out."""

import base64
import csv
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.worklists import DATE, ROWS, TOTALS, batch_row, jpeg, row, written
from thyro_core.errors import InputError
from thyro_core.reporting import worklist as pages
from thyro_core.reporting.worklist import ServedPage, page_policy, probability_text, worklist_page
from thyro_core.screening import worklist
from thyro_core.screening.model import BlockScores
from thyro_core.screening.rules import BandLimits, Totals
from thyro_core.screening.score import verdict
from thyro_core.screening.worklist import MOST_ROWS, Worklist

NASTY = '"><script>alert(1)</script>&amp;'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(tmp_path_factory.mktemp("list"), ROWS, TOTALS, batch_row())


def listed(folder: Path) -> list[dict[str, str]]:
    with (folder / "worklist.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_nothing_on_the_page_is_markup_but_the_page_itself() -> None:
    rows = [
        {**row(1, "refer", 0.9, name=NASTY, detail=NASTY, patient_id=NASTY), "rank": 1},
        {**row(2, "not scored", detail=NASTY, name=NASTY), "rank": 2},
    ]
    batches = [batch_row(batch=NASTY, breaches=NASTY)]
    page = worklist_page(Worklist(DATE, rows, {}, TOTALS, batches))
    assert page.count("<script") == 2, "the page's own: what it knows, and what it does"
    assert "<script>alert" not in page
    assert "&lt;script&gt;" in page


def test_what_readers_said_cannot_leave_its_element() -> None:
    said = [{"who": "</script><script>alert(1)</script>", "what": "comment", "comment": NASTY}]
    page = worklist_page(
        Worklist(DATE, [], {}, TOTALS, [batch_row()]), served_page=ServedPage("t", "ab", said)
    )
    assert page.count("<script") == page.count("</script") == 2
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    assert json.loads(text)["feedback"] == said


def test_the_policy_allows_the_pages_own_script_and_style_alone(folder: Path) -> None:
    page = (folder / "worklist.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert "unsafe" not in policy
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} &#39;sha256-{digest}&#39;" in policy
    assert "connect-src" not in policy
    assert "connect-src 'self'" in page_policy(is_served=True)


def test_a_clip_is_one_entry_and_an_exam_is_one_place(tmp_path: Path) -> None:
    clip = {"file_id": "c" * 64, "path_id": "p1", "exam_id": "e" + "1" * 32}
    rows = [
        row(1, "routine", 0.1, frame=0, **clip),
        row(2, "refer", 0.9, frame=3, **clip),
        row(3, "routine", 0.2, path_id="p2", exam_id=clip["exam_id"]),
        row(4, "refer", 0.8, path_id="p3", exam_id="f" + "2" * 32, name="sub/x.png"),
    ]
    folder = written(tmp_path, rows, Totals(4, 4, 0, 0, 2, 0, 2), batch_row())
    page = (folder / "worklist.html").read_text()
    cases = re.findall(r'<li class="case[^>]+data-image="([0-9a-f]+)".*?data-rank="(\d+)"', page)
    assert [(int(image, 16), rank) for image, rank in cases] == [(2, "1"), (3, "3"), (4, "2")]
    assert page.count("1 more frame or view of this file") == 1
    more = [row(i, "routine", i / 100, frame=i, **clip) for i in (5, 6, 7)]
    page = worklist_page(
        Worklist(DATE, [each | {"rank": 1} for each in more], {}, TOTALS, [batch_row()])
    )
    assert page.count("2 more frames or views of this file") == 1
    page = (folder / "worklist.html").read_text()
    titles = [" ".join(re.sub("<[^>]+>", " ", t).split())
              for t in re.findall(r"<h3>(.*?)</h3>", page)]  # fmt: skip
    assert titles == [f"Exam {clip['exam_id'][:12]} 3 images", "Folder sub 1 image"]
    refer, routine = (page.index(f'data-band="{band}">\n<h2') for band in ("refer", "routine"))
    assert refer < page.index("000003") < routine, "an exam stays together"
    assert "None first in its exam." in page


def test_two_patients_in_one_exam_are_said() -> None:
    rows = [{**row(i, "refer", 0.9, exam_id="e1", path_id=f"p{i}", patient_id=f"q{i}"), "rank": i}
            for i in (1, 2)]  # fmt: skip
    page = worklist_page(Worklist(DATE, rows, {}, TOTALS, [batch_row()]))
    assert "name 2 patients: some are mixed up" in page


def test_the_threshold_is_a_number_and_a_model_that_is_gone_has_none() -> None:
    batches = [batch_row(), batch_row(batch_id="n2", model_id="b2")]
    page = worklist_page(Worklist(DATE, [], {}, TOTALS, batches, thresholds={"b1": 0.43219}))
    assert re.findall(r"data-threshold>([^<]+)<", page) == ["0.432"]
    assert page.count("which is gone, and its threshold with it") == 1


@pytest.mark.parametrize(
    ("more", "is_keyless"),
    [({}, True), ({"exam_id": "f" + "1" * 32}, True), ({"exam_id": "e" + "1" * 32}, False),
     ({"patient_id": "q1"}, False)],
)  # fmt: skip
def test_a_night_without_pseudonyms_says_what_that_costs(
    tmp_path: Path, more: dict[str, str], is_keyless: bool
) -> None:
    folder = written(
        tmp_path, [row(1, "refer", 0.9, **more)], Totals(1, 1, 0, 0, 1, 0, 0), batch_row()
    )
    page = (folder / "worklist.html").read_text()
    assert ("data-keyless" in page) == is_keyless
    assert ("not noticed" in page) == is_keyless


@pytest.mark.parametrize(
    ("name", "link"),
    [("a b/ü&.png", "https://v/?f=a%20b%2F%C3%BC%26.png&amp;n=0"), (None, None)],
)
def test_a_row_has_a_link_where_it_has_what_the_pattern_names(name, link) -> None:
    rows = [{**row(1, "refer", 0.9, name=name), "rank": 1}]
    page = worklist_page(
        Worklist(DATE, rows, {}, TOTALS, [batch_row()]), viewer="https://v/?f={name}&n={frame}"
    )
    assert re.findall(r'<a href="([^"]+)"', page) == ([link] if link else [])


@pytest.mark.parametrize(
    "pattern",
    ["javascript:alert(1)//{name}", "{name}", "https://v/{batch}", "https://v/{name.x}", "https://v/{",
     "https://v/{0}"],
)  # fmt: skip
def test_a_pattern_that_gives_no_address_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="THYRO_VIEWER_LINK: expected a web address"):
        worklist_page(Worklist(DATE, [], {}, TOTALS, [batch_row()]), viewer=pattern)


def test_a_file_without_a_hash_is_not_said_to_have_one(tmp_path: Path) -> None:
    rows = [row(7, "not scored", reason="unreadable", file_id=None)]
    folder = written(tmp_path, rows, Totals(1, 0, 0, 1, 0, 0, 0), batch_row())
    page = (folder / "worklist.html").read_text()
    assert "no hash of a file: a link, empty, or not readable" in page
    assert "No picture: it is not decoded." in page


def test_a_long_night_is_cut_and_says_so(tmp_path: Path) -> None:
    routine = MOST_ROWS["routine"] + 5
    rows = [row(i, "routine", i / 1000) for i in range(routine)] + [row(999, "refer", 0.9)]
    totals = Totals(routine + 1, routine + 1, 0, 0, 1, 0, routine)
    folder = written(tmp_path, rows, totals, batch_row())
    page = (folder / "worklist.html").read_text()
    assert f"The first 200 of {routine} are shown; worklist.csv has all." in page
    assert page.count('<li class="case') == 201
    assert len(listed(folder)) == routine + 1
    # The ones left out are the least probable.
    assert f"{5:064x}" in page
    assert f"{4:064x}" not in page


def test_only_the_first_have_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (worklist, pages):
        monkeypatch.setattr(module, "MOST_PICTURES", {"refer": 2})
    rows = [row(i, "refer", 0.5 + i / 100, width=384, height=144) for i in range(4)]
    folder = written(tmp_path, rows, Totals(4, 4, 0, 0, 4, 0, 0), batch_row())
    page = (folder / "worklist.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert page.count("only the first 2 of this band have one") == 2
    assert page.index("data:image/jpeg") < page.index("only the first 2")


def test_batches_of_one_night_share_a_worklist(tmp_path: Path) -> None:
    rows = [row(1, "refer", 0.6), row(2, "refer", 0.8, batch_id="n2", model_id="b2")]
    batches = [
        batch_row(),
        batch_row(batch_id="n2", model_id="b2", breaches="psi_score,mmd", files=None),
    ]
    folder = written(tmp_path, rows, Totals(2, 2, 0, 0, 2, 0, 0), *batches)
    assert [(each["image_id"][-1], each["model_id"]) for each in listed(folder)] == [
        ("2", "b2"), ("1", "b1"),
    ]  # fmt: skip
    page = (folder / "worklist.html").read_text()
    assert page.count("data:image/jpeg") == 2
    assert page.count("Trust the order less") == 2
    assert "made for: psi_score." in page
    assert page.count("met 13 files = 8 read + 3 passed over + 2 not whole") == 1
    assert page.count("passed over 3 files; 2 were not whole") == 1, (
        "as an earlier version wrote it"
    )


def test_the_pictures_are_the_stored_ones(folder: Path) -> None:
    page = (folder / "worklist.html").read_text()
    urls = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert [base64.b64decode(url) for url in urls] == [jpeg(), jpeg()]


def test_the_page_says_what_the_checks_do_not_notice(folder: Path, tmp_path: Path) -> None:
    assert (folder / "worklist.html").read_text().count(pages.UNNOTICED_NOTE) == 1
    # Where nothing is scored there is no probability to warn of.
    refused = written(tmp_path, [row(1, "not scored")], Totals(1, 0, 1, 0, 0, 0, 0), batch_row())
    assert pages.UNNOTICED_NOTE not in (refused / "worklist.html").read_text()


def test_an_image_unlike_the_training_set_has_its_figures_and_no_probability(
    tmp_path: Path,
) -> None:
    scores = BlockScores(
        probability=np.array([0.9, 0.9]), raw=np.zeros(2), sd=np.zeros(2),
        distance=np.array([27.557, 31.25]), embeddings=np.zeros((2, 1), np.float32), features=(),
    )  # fmt: skip
    limits = BandLimits(threshold=0.5, review_sds=1, outlier=27.557, near=20)
    rows = [
        row(i, verdict(scores, i, limits)["band"], 0.9) | {"prob_malignant": None}
        | verdict(scores, i, limits)
        for i in range(2)
    ]  # fmt: skip
    page = written(tmp_path, rows, Totals(2, 1, 1, 0, 1, 0, 0), batch_row())
    first, second = sorted(listed(page), key=lambda each: each["image_id"])
    assert (first["band"], first["prob_malignant"]) == ("refer", "0.9"), (
        "at the bound is not beyond"
    )
    assert (second["band"], second["prob_malignant"], second["why"], second["detail"]) == (
        "not scored", "", "Unlike the images that the model was trained on.",
        "distance 31.25, at most 27.557",
    )  # fmt: skip
    assert "(distance 31.25, at most 27.557)" in (page / "worklist.html").read_text()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"), (2e-5, "< 0.001"), (0.0045913, "0.00459"), (0.00455, "0.00455"),
        (0.43219, "0.432"), (0.9997, "> 0.999"), (1.0, "1.000"),
    ],
)  # fmt: skip
def test_a_probability_is_not_rounded_to_certainty_or_across_its_threshold(value, text) -> None:
    assert probability_text(value) == text


def test_what_the_last_run_set_aside_stands_on_the_page_with_its_reasons() -> None:
    def page(**more: object) -> str:
        return worklist_page(Worklist(DATE, [], {}, TOTALS, [batch_row(**more)]))

    line = "16 listed = 13 files + 3 set aside: 2 hidden, 1 &lt;unfinished&gt;."
    assert line in page(aside=3, aside_reasons="2 hidden, 1 <unfinished>")
    # None is set aside, or an older version did not count them.
    assert "set aside" not in page(aside=0, aside_reasons="") + page()


def test_the_promise_of_conformal_bands_stands_on_the_page_and_no_other() -> None:
    plain = worklist_page(Worklist(DATE, [], {}, TOTALS, [batch_row()], thresholds={"b1": 0.4}))
    assert "data-promise" not in plain
    assert "Below the threshold" in plain
    worklist = Worklist(
        DATE, [], {}, TOTALS, [batch_row()], thresholds={"b1": 0.4}, promises={"b1": "At most <5 %"}
    )
    page = worklist_page(worklist)
    assert "At most &lt;5 %" in page
    assert "Below the threshold" not in page, "no band of that night is one of a threshold"
    assert "which refers above a probability of <strong data-threshold>0.400</strong>:" in page
