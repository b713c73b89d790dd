"""The same picture again, under another name, in another file or on another night: scored once.

And the sums: each file that a run met is one row (a clip: one a frame), whatever else lies there.
"""

import io
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.support.dicoms import dicom, speckle
from tests.support.screened import RULES, DecoderHere, Ward, write_colour, write_image
from thyro_core.screening import decode as screening_decode
from thyro_core.screening import file_images
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.decode import BlockDecoder, ScreeningJob
from thyro_core.screening.drift_sample import drift_sample
from thyro_core.screening.files import blocks
from thyro_core.screening.rules import OTHER_PATIENT, TURNED_NOTE, Counts, Night, Totals, rank_key
from thyro_core.screening.store import (
    ensure_path_salt,
    file_count,
    gather,
    publish_known,
    save_night,
    write_batch_row,
    write_chunk,
)
from thyro_core.screening.verify import verify_nights
from thyro_core.screening.worklist import unscored_rows, why
from thyro_core.store.keys import path_salt_key, worklist_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Place:
    """A store and a folder, screened without a model: what is fit has a score."""

    store: Store
    batch: Path

    def screen(
        self,
        date: str = "2026-11-25",
        *,
        rules: ScreeningRules = RULES,
        size: int = 8,
        dies_after: int | None = None,
        probability: Callable[[dict], float] = lambda _: 0.1,
    ) -> tuple[Counts, Totals]:
        """A night's run; one that dies after some blocks puts nothing together."""
        night = Night(date=date, batch=f"file://{self.batch}", model_id="b1", rules=rules)
        save_night(self.store, night)
        ensure_path_salt(self.store)
        keys = publish_known(self.store, night)
        job = ScreeningJob(self.store.url, str(self.batch), night, 32, *keys, str(self.batch))
        decode, total = BlockDecoder(job), Counts()
        for number, block in enumerate(blocks(str(self.batch), size)):
            if number == dies_after:
                return total, Totals(0, 0, 0, 0, 0, 0, 0)
            decoded = decode(block)
            total += decoded.counts
            table = decoded.table.drop_columns(["pixels", "display", "text"]).to_pylist()
            for row in table:
                if row["status"] is None:
                    score = {"status": "scored", "band": "routine"}
                    row.update(score, prob_malignant=probability(row))
                    row["rank_key"] = rank_key("routine", row["prob_malignant"])
            if table:
                chunk = schemas.rows_to_table("screening", table)
                write_chunk(self.store, night, "rows", f"{number}-{total.known}", chunk)
        total.check()
        totals = gather(self.store, night)
        assert total.fresh <= file_count(self.store, night)
        met = {"files": total.files, "known": total.known, "late": total.late}
        write_batch_row(self.store, night, totals, met)
        return total, totals


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(file_images, "DecoderProcess", DecoderHere)
    (tmp_path / "batch").mkdir()
    return Place(open_store(str(tmp_path / "store")), tmp_path / "batch")


def rows(ward: Ward | Place, date: str | None = None) -> list[dict]:
    keys = {} if date is None else {"date": int(date.replace("-", ""))}
    return read_table(ward.store, "screening", **keys).to_pylist()


def page(ward: Ward, date: str = "2026-11-25") -> str:
    return ward.store.read(worklist_key(date, "html")).decode()


def same_picture_three_times(ward: Ward) -> np.ndarray:
    pixels = speckle(seed=3)
    (ward.batch / "1.dcm").write_bytes(dicom(pixels))
    (ward.batch / "2.dcm").write_bytes(dicom(pixels, SOPInstanceUID="1.2.3.4.5.6.77"))
    Image.fromarray(pixels).save(ward.batch / "3.png")
    return pixels


def test_the_same_picture_in_other_files_is_scored_once_and_each_file_has_its_row(
    ward: Ward,
) -> None:
    same_picture_three_times(ward)
    result = ward.screen()
    assert (result.totals.received, result.totals.scored, result.totals.copies) == (3, 1, 2)
    found = rows(ward)
    (original,) = [row for row in found if row["status"] == "scored"]
    copies = [row for row in found if row["status"] == "copy"]
    assert {row["copy_of"] for row in copies} == {original["image_id"]}
    assert len({row["file_id"] for row in found}) == 3
    assert all(row["prob_malignant"] is row["reason"] is None for row in copies)
    assert original["copy_of"] is None
    said = page(ward)
    assert "3 received = 1 scored + 0 rejected + 0 failed + 2 copies" in said
    assert said.count(f"The same picture as that of the row {original['image_id'][:16]}.") == 2
    assert unscored_rows(ward.store, result.night) == []
    assert ward.screen().counts.known == 3


def test_a_copy_on_another_night_names_the_night_and_the_band_of_its_original(ward: Ward) -> None:
    path = write_image(ward.batch / "a.png", 1, malignant=True)
    ward.screen("2026-11-24")
    (original,) = rows(ward)
    shutil.copy(path, ward.batch / "b.png")
    Image.open(path).save(ward.batch / "c.bmp")
    result = ward.screen()
    assert (result.counts.known, result.totals.scored, result.totals.copies) == (1, 0, 2)
    for row in rows(ward, "2026-11-25"):
        assert (row["status"], row["copy_of"]) == ("copy", original["image_id"])
        assert row["detail"] == f"of the night 2026-11-24, in the band {original['band']}"
    assert result.drift.n_received == 0
    assert ward.screen("2026-11-26").counts.known == 3


def test_a_copy_of_what_is_refused_says_the_same_and_is_tried_again_like_it(place: Place) -> None:
    path = write_colour(place.batch / "a.png", 1)
    shutil.copy(path, place.batch / "b.png")
    counts, totals = place.screen()
    assert (totals.rejected, totals.copies) == (1, 1)
    (copy,) = [row for row in rows(place) if row["status"] == "copy"]
    assert copy["reason"] == "doppler_colour"
    assert "which is not scored: Coloured pixels" in why(copy)
    assert place.screen()[0].known == 2
    lenient = RULES.model_copy(update={"overlay_bound": 0.5})
    counts, totals = place.screen("2026-11-26", rules=lenient)
    assert (counts.known, totals.scored, totals.copies) == (0, 1, 1)
    (copy,) = [row for row in rows(place, "2026-11-26") if row["status"] == "copy"]
    assert copy["reason"] is None
    assert place.screen("2026-11-27")[0].known == 2


def test_one_picture_refused_in_colour_is_scored_in_grey_once(place: Place) -> None:
    coloured = write_colour(place.batch / "a.png", 1)
    place.screen("2026-11-24")
    Image.open(coloured).convert("L").save(place.batch / "b.png")
    Image.open(coloured).convert("L").save(place.batch / "c.bmp")
    counts, totals = place.screen()
    assert (counts.known, totals.scored, totals.copies) == (1, 1, 1)
    shutil.copy(coloured, place.batch / "d.png")
    counts, totals = place.screen()
    assert (totals.scored, totals.copies) == (1, 2)
    assert {row["reason"] for row in rows(place, "2026-11-25")} == {None}


def test_a_copy_is_scored_once_its_originals_row_is_gone(place: Place) -> None:
    path = write_image(place.batch / "a.png", 1)
    place.screen("2026-11-24")
    shutil.copy(path, place.batch / "b.png")
    place.screen("2026-11-25")
    shutil.rmtree(Path(place.store.path("tables/screening/date=20261124")))
    path.unlink()
    counts, totals = place.screen("2026-11-25")
    assert (counts.known, totals.scored, totals.copies) == (0, 1, 0)
    assert [row["copy_of"] for row in rows(place)] == [None]
    assert place.screen("2026-11-26")[0].known == 1


def test_frames_and_views_are_compared_one_by_one(place: Place) -> None:
    frames = [speckle(seed=seed) for seed in (1, 2, 1)]
    (place.batch / "clip.dcm").write_bytes(dicom(np.stack(frames)))
    Image.fromarray(frames[1]).save(place.batch / "still.png")
    shutil.copy(place.batch / "clip.dcm", place.batch / "clip-again.dcm")
    counts, totals = place.screen()
    assert (counts.files, totals.received) == (3, 7)
    assert (totals.scored, totals.copies) == (2, 5)


def test_a_picture_under_two_patients_is_said(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", "k" * 32)
    pixels = speckle(seed=3)
    (ward.batch / "1.dcm").write_bytes(dicom(pixels, PatientID="A-1"))
    (ward.batch / "2.dcm").write_bytes(dicom(pixels, PatientID="A-1", SOPInstanceUID="1.2.3.99"))
    ward.screen("2026-11-24")
    assert OTHER_PATIENT not in page(ward, "2026-11-24")
    for number in range(8):
        write_image(ward.batch / f"3{number}.png", number)
    (ward.batch / "4.dcm").write_bytes(dicom(pixels, PatientID="B-2"))
    ward.screen()
    assert page(ward).count(OTHER_PATIENT) == 1
    other = dicom(speckle(seed=4), PatientID="A-1"), dicom(speckle(seed=4), PatientID="B-2")
    (ward.batch / "0.dcm").write_bytes(other[0])
    (ward.batch / "9.dcm").write_bytes(other[1])
    monkeypatch.setattr("tests.support.screened.BLOCK", 1)
    ward.screen("2026-11-26")
    assert page(ward, "2026-11-26").count(OTHER_PATIENT) == 1, "in two blocks of a night"
    ward.screen("2026-11-26")
    assert page(ward, "2026-11-26").count(OTHER_PATIENT) == 1, "said once"


def test_copies_in_other_blocks_leave_one_score_one_map_and_one_picture(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.screened.BLOCK", 1)
    path = write_image(ward.batch / "a.png", 1, malignant=True)
    Image.open(path).save(ward.batch / "b.bmp")
    shutil.copy(path, ward.batch / "c.png")
    ward.means = replace(ward.means, keep_names=True)
    result = ward.screen()
    assert (result.totals.scored, result.totals.copies) == (1, 2)
    (original,) = [row for row in rows(ward) if row["status"] == "scored"]
    cams = read_table(ward.store, "screening_cams").to_pylist()
    assert {row["image_id"] for row in cams} <= {original["image_id"]}
    assert len(drift_sample(ward.store, result.night).embeddings) == 1
    assert {row["name"] for row in rows(ward)} == {"a.png", "b.bmp", "c.png"}
    before = rows(ward)
    assert ward.screen().counts.known == 3
    assert rows(ward) == before


FORMS = (
    *(np.rot90(speckle(seed=4), quarters) for quarters in range(4)),
    *(np.rot90(speckle(seed=4)[:, ::-1], quarters) for quarters in range(4)),
)


def write_form(place: Place, form: int, name: str | None = None) -> None:
    Image.fromarray(np.ascontiguousarray(FORMS[form])).save(place.batch / f"{name or form}.png")


def digit(row: dict) -> float:
    """A score for each form of a picture, which no other form has."""
    return int(row["picture_id"][:6], 16) / 16**6


@pytest.mark.parametrize("size", [1, 3, 16])
def test_of_a_picture_and_its_turned_and_mirrored_forms_the_highest_score_stands(
    place: Place, size: int
) -> None:
    for form in range(8):
        write_form(place, form)
    write_form(place, 5, "again")
    totals = place.screen(size=size, probability=digit)[1]
    assert (totals.received, totals.scored, totals.copies) == (9, 1, 8)
    found = rows(place)
    (original,) = [row for row in found if row["status"] == "scored"]
    assert original["prob_malignant"] == max(map(digit, found))
    assert original["detail"] is None
    for row in found:
        if row is not original:
            assert row["copy_of"] == original["image_id"]
            is_turned = row["picture_id"] != original["picture_id"]
            assert row["detail"] == (TURNED_NOTE if is_turned else None)
    assert place.screen(size=size, probability=digit)[0].known == 9
    assert rows(place) == found
    assert all(check.is_passed for check in verify_nights(place.store))


def test_another_form_on_a_later_night_is_a_copy_and_says_so(place: Place) -> None:
    write_form(place, 0)
    place.screen("2026-11-24")
    (original,) = rows(place)
    for form in (3, 6):
        write_form(place, form)
    write_form(place, 0, "as it lay")
    counts, _ = place.screen("2026-11-25")
    copies = rows(place, "2026-11-25")
    night = "of the night 2026-11-24, in the band routine"
    assert sorted(row["detail"] for row in copies) == [night, *[f"{night}; {TURNED_NOTE}"] * 2]
    assert {row["copy_of"] for row in copies} == {original["image_id"]}
    assert (counts.fresh, place.screen("2026-11-26")[0].known) == (3, 4)
    assert all(check.is_passed for check in verify_nights(place.store))


def test_rows_of_before_know_their_bytes_at_any_path(place: Place) -> None:
    path = write_image(place.batch / "a.png", 1)
    colour = write_colour(place.batch / "colour.png", 2)
    place.screen()
    (part,) = place.store.keys("tables/screening/date=20261125")
    old = pq.ParquetFile(io.BytesIO(place.store.read(part))).read()
    with place.store.writing(part) as out:
        pq.write_table(
            old.drop_columns(["path_id", "picture_id", "pattern_id", "copy_of", "reading_id"]), out
        )
    shutil.copy(path, place.batch / "b.png")
    shutil.copy(colour, place.batch / "d.png")
    counts, totals = place.screen()
    assert counts.known == 2, "a.png and b.png: which of them it was, nothing says"
    assert (totals.scored, totals.rejected, totals.copies) == (1, 1, 1)
    assert place.screen()[0].known == 4


def test_paths_are_hashed_with_the_stores_own_salt(place: Place, tmp_path: Path) -> None:
    write_image(place.batch / "a.png", 1)
    place.screen()
    (row,) = rows(place)
    other = open_store(str(tmp_path / "other"))
    ensure_path_salt(other)
    assert other.read(path_salt_key()) != place.store.read(path_salt_key())
    before = other.read(path_salt_key())
    ensure_path_salt(other)
    assert other.read(path_salt_key()) == before
    again = screening_decode.path_hash(
        place.store.read(path_salt_key()), f"file://{place.batch}/a.png"
    )
    assert row["path_id"] == again


@cache
def contents(kind: int, variant: int) -> bytes:
    """Bytes of a file: of one kind it is the same picture in each variant."""
    if kind == 5:
        return b""
    if kind == 4:
        return b"no image at all"
    if kind == 3:
        return dicom(np.stack([speckle(32, 32, 0), speckle(32, 32, 9)]))
    pixels = speckle(64, 72, kind)
    if kind == 2:
        pixels = np.full_like(pixels, 90)
    if variant == 2:
        return dicom(pixels, SOPInstanceUID=f"1.2.3.{kind}")
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG" if variant else "BMP")
    return out.getvalue()


def faults(place: Place) -> dict[str, str]:
    return {check.name: check.detail for check in verify_nights(place.store) if not check.is_passed}


def test_verify_says_which_sums_and_which_copies_do_not_hold(place: Place) -> None:
    assert list(verify_nights(place.store)) == []
    path = write_image(place.batch / "a.png", 1)
    place.screen("2026-11-24")
    shutil.copy(path, place.batch / "b.png")
    write_colour(place.batch / "c.png", 2)
    place.screen()
    one, two, copies = verify_nights(place.store)
    assert all(check.is_passed for check in (one, two, copies))
    assert one.detail == "1 received = 1 scored + 0 rejected + 0 failed + 0 copies"
    assert two.detail == "2 received = 0 scored + 1 rejected + 0 failed + 1 copies"
    assert copies.detail.startswith("1 copies among 3 images of all nights")

    (key,) = place.store.keys("tables/screening_batches/date=20261125")
    batches = place.store.read(key)
    for change, said in (
        ({"copies": 0}, "expected received = scored + rejected + failed + copies"),
        ({"received": 3, "copies": 2}, "the rows of tables/screening/date=20261125"),
        ({"files": 0}, "0 files, of which 1 passed over"),
    ):
        row = read_table(place.store, "screening_batches", date=20261125).to_pylist()[0]
        table = schemas.rows_to_table("screening_batches", [row | change])
        write_table(place.store, "screening_batches", table, date=20261125)
        ((name, detail),) = faults(place).items()
        assert name == two.name
        assert said in detail
        place.store.write(key, batches)

    part = read_table(place.store, "screening", date=20261125)
    keys = {"date": 20261125, "batch_id": part["batch_id"][0].as_py()}
    twice = [row | {"status": "scored", "band": "routine", "copy_of": None}
             if row["status"] == "copy" else row for row in part.to_pylist()]  # fmt: skip
    write_table(place.store, "screening", schemas.rows_to_table("screening", twice), **keys)
    assert "1 pictures are scored twice by one model" in faults(place)["copies"]
    write_table(place.store, "screening", part, **keys)
    assert not faults(place)

    shutil.rmtree(Path(place.store.path("tables/screening/date=20261124")))
    assert "1 copies of a row that is gone" in faults(place)["copies"]
    place.screen("2026-11-26")
    assert faults(place).keys() == {one.name}, "the picture is scored anew; a part is still lost"


class Plan(NamedTuple):
    """Kind and variant of the files that come before two nights, and how these are run."""

    first: list[tuple[int, int]]
    later: list[tuple[int, int]]
    size: int
    dies_after: int


FILES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 2)), max_size=14)


def check_night_by_night(factory: pytest.TempPathFactory, plan: Plan) -> None:
    place = Place(open_store(str(factory.mktemp("store"))), factory.mktemp("batch"))
    dates, totals = ("2026-11-25", "2026-11-26"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_images, "DecoderProcess", DecoderHere)
        for date, files in zip(dates, (plan.first, plan.later), strict=True):
            for number, (kind, variant) in enumerate(files):
                (place.batch / f"{date}-{number}").write_bytes(contents(kind, variant))
            place.screen(date, size=plan.size, dies_after=plan.dies_after)
            counts, total = place.screen(date, size=plan.size)
            totals.append(total)
            assert counts.files == len(list(place.batch.iterdir()))
    assert all(check.is_passed for check in verify_nights(place.store))
    found = rows(place)
    n_empty = sum(kind == 5 for kind, _ in plan.first)
    check_rows(found, plan.first + plan.later, n_empty)
    for date, each in zip(dates, totals, strict=True):
        own = Counter(row["status"] for row in found if row["date"] == int(date.replace("-", "")))
        assert each == Totals(
            own.total(), own["scored"], own["rejected"], own["failed"], 0, 0, own["scored"],
            own["copy"],
        )  # fmt: skip


PLANS = st.builds(Plan, FILES, FILES, st.integers(1, 5), st.integers(0, 4))


@settings(max_examples=3, deadline=None, phases=[Phase.generate], derandomize=True)
@given(plan=PLANS)
def test_whatever_copies_there_are_each_file_is_one_row_and_the_sums_hold(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan
) -> None:
    check_night_by_night(tmp_path_factory, plan)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(plan=PLANS)
def test_the_same_with_many_more_files(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan
) -> None:
    check_night_by_night(tmp_path_factory, plan)


def check_rows(found: Sequence[dict], files: Sequence[tuple[int, int]], n_empty: int) -> None:
    """One row a frame of each file, empty files anew each night; one original a picture."""
    n_frames = [2 if kind == 3 else 1 for kind, _ in files]
    assert len(found) == sum(n_frames) + n_empty
    assert len({(row["date"], row["path_id"]) for row in found}) == len(files) + n_empty
    assert len({row["image_id"] for row in found if row["file_id"]}) == len(
        [row for row in found if row["file_id"]]
    )
    originals = {row["image_id"]: row for row in found if row["status"] != "copy"}
    pictures = Counter(row["picture_id"] for row in originals.values() if row["picture_id"])
    assert set(pictures.values()) <= {1}, "nothing is scored or refused twice"
    for row in found:
        if row["status"] == "copy":
            original = originals[row["copy_of"]]
            assert original["picture_id"] == row["picture_id"]
            assert original["reason"] == row["reason"]
        else:
            assert row["copy_of"] is None
