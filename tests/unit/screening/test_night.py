"""Nights in this process, on disk: every image once, whatever the batch and the program go through.

The same steps as the flow runs, without Ray; `tests/e2e/test_screen_cli.py` runs them on Ray.
"""

import base64
import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from markupsafe import escape
from PIL import Image, ImageDraw, ImageFont

from tests.support import deadly_reader
from tests.support.cards import a_card_of_version_1
from tests.support.dicoms import PERSON, dicom, speckle
from tests.support.folders import refuse_folder
from tests.support.screened import RULES, Ward, write_colour, write_image
from thyro_core.errors import InputError, ThyroError
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS, Bundle, reference
from thyro_core.registry.card import card_bytes
from thyro_core.registry.champion import set_champion
from thyro_core.reporting.drift import drift_page
from thyro_core.screening import reader
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.drift import DriftThresholds, compare_with_training
from thyro_core.screening.drift_sample import drift_sample
from thyro_core.screening.model import ScreeningModel
from thyro_core.screening.rules import BandLimits, Totals
from thyro_core.screening.worklist import unscored_reasons
from thyro_core.store.keys import (
    bundle_prefix,
    card_key,
    path_salt_key,
    table_prefix,
    worklist_key,
)
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table
from thyro_core.tables.query import run_query

pytestmark = pytest.mark.usefixtures("one_thread")

SUMS = """
SELECT b.date, b.batch_id, b.received, b.scored, b.rejected, b.failed, b.copies,
    count(s.image_id) AS images, count(DISTINCT s.image_id) AS distinct_images,
    count(*) FILTER (s.status = 'scored') AS rows_scored,
    count(*) FILTER (s.status = 'rejected') AS rows_rejected,
    count(*) FILTER (s.status = 'failed') AS rows_failed,
    count(*) FILTER (s.status = 'copy') AS rows_copies
FROM screening_batches b LEFT JOIN screening s USING (date, batch_id)
GROUP BY ALL ORDER BY b.date, b.batch_id
"""


def check_sums(ward: Ward) -> list[dict]:
    """received = scored + rejected + failed + copies by SQL, and the rows say the same."""
    found = run_query(ward.store.url, SUMS).to_pylist()
    for row in found:
        statuses = ("scored", "rejected", "failed", "copies")
        assert row["received"] == sum(row[status] for status in statuses), row
        assert row["received"] == row["images"] == row["distinct_images"], row
        for status in statuses:
            assert row[status] == row[f"rows_{status}"], row
    return found


def rows(ward: Ward, date: str | None = None) -> dict[str, dict]:
    """One row of each file's contents, by its hash; copies of them do not count."""
    keys = {} if date is None else {"date": int(date.replace("-", ""))}
    found = read_table(ward.store, "screening", **keys).to_pylist()
    return {row["file_id"]: row for row in found if row["status"] != "copy"}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def worklist(ward: Ward, date: str = "2026-11-25") -> list[dict]:
    text = ward.store.read(worklist_key(date, "csv")).decode()
    return list(csv.DictReader(io.StringIO(text)))


def mixed(ward: Ward) -> dict[str, Path]:
    """Images of all fates."""
    batch = ward.batch
    found = {f"good{i}": write_image(batch / f"{i % 2}/im{i}.png", i, malignant=i % 3 == 0)
             for i in range(12)}  # fmt: skip
    found["colour"] = write_colour(batch / "colour.png", 1)
    found["small"] = write_image(batch / "small.png", 2, width=40, height=40)
    found["truncated"] = batch / "truncated.png"
    found["truncated"].write_bytes(found["good0"].read_bytes()[:900])
    found["text"] = batch / "notes.doc"
    found["text"].write_bytes(b"no image at all")
    found["dicom"] = batch / "1.2.3.4.5"
    found["dicom"].write_bytes(dicom(speckle()))
    (batch / "labels.csv").write_text("not,an,image")
    return found


def test_a_night_of_all_fates(ward: Ward) -> None:
    files = mixed(ward)
    shutil.copy(files["good1"], ward.batch / "copy-of-good1.png")
    result = ward.screen()
    assert result.counts.files == len(files) + 1
    assert (result.counts.known, result.counts.late) == (0, 0)
    assert (result.counts.fresh, result.totals.copies) == (len(files) + 1, 1)
    found = rows(ward)
    assert found.keys() == {digest(path) for path in files.values()}
    fates = {name: (found[digest(path)]["status"], found[digest(path)]["reason"])
             for name, path in files.items() if not name.startswith(("good", "dicom"))}  # fmt: skip
    assert fates == {
        "colour": ("rejected", "doppler_colour"),
        "small": ("rejected", "too_small"),
        "truncated": ("failed", "undecodable"),
        "text": ("failed", "undecodable"),
    }
    check_sums(ward)
    listed = worklist(ward)
    assert len(listed) == len(files) + 1
    assert [int(row["rank"]) for row in listed] == list(range(1, len(files) + 2))
    unscored = [row for row in listed if row["band"] == "not scored"]
    assert {row["file_id"] for row in unscored} >= {digest(files[name]) for name in fates}
    assert all(row["why"] for row in unscored)


def test_scores_are_the_ensembles_own(ward: Ward, model) -> None:
    import torch

    from thyro_core.imaging.decode import decode, resize
    from thyro_core.registry.bundle import reference
    from thyro_core.registry.distance import embedding_distance
    from thyro_core.registry.ensemble import embedding, load_members, score_batch
    from thyro_core.training.batches import normalise

    files = [write_image(ward.batch / f"{i}.png", i, malignant=i % 2 == 0) for i in range(10)]
    ward.screen()
    _, bundle = model
    members = load_members(bundle, ward.store, ward.means.scratch)
    for path in files:
        row = rows(ward)[digest(path)]
        grey = resize(decode(path.read_bytes(), RULES).grey, bundle.side)
        images = normalise(torch.from_numpy(grey)[None, None].float() / 255)
        said = score_batch(members, images, bundle.calibration)
        far = embedding_distance(
            reference(ward.store, bundle.model_id),
            embedding(members[0], bundle.architecture, images),
        )
        assert row["distance"] == pytest.approx(far[0], rel=1e-4)
        if row["status"] == "scored":
            # Batches of another size differ in the last bits of float32.
            assert row["prob_malignant"] == pytest.approx(said.probability[0], abs=1e-5)
            assert row["prob_raw"] == pytest.approx(said.raw[0], abs=1e-5)
            assert row["sd"] == pytest.approx(said.sd[0], abs=1e-5)
            referred = row["prob_malignant"] >= bundle.threshold
            assert (row["band"] == "refer") == referred
    assert any(row["status"] == "scored" for row in rows(ward).values())


def champion_of_version_1(ward: Ward, bundle: Bundle) -> str:
    """The model again, with the card that an earlier version would have written."""
    old = a_card_of_version_1(
        7,
        side=bundle.side,
        members=[key.rpartition("/")[2] for key in bundle.members],
        files=bundle.card["files"],
    )
    for name in bundle.card["files"]:
        data = ward.store.read(f"{bundle_prefix(bundle.model_id)}/{name}")
        ward.store.write(f"{bundle_prefix(old.model_id)}/{name}", data)
    ward.store.write(card_key(old.model_id), card_bytes(old))
    set_champion(ward.store, old.model_id, "promoted", "for the test", lambda _: "not asked")
    return old.model_id


def test_a_champion_of_version_1_goes_on_and_the_worklist_says_whose_its_figures_are(
    ward: Ward, model
) -> None:
    import torch

    from thyro_core.imaging.decode import decode, resize
    from thyro_core.registry.ensemble import load_members
    from thyro_core.training.batches import normalise

    write_image(ward.batch / "a.png", 1, malignant=True)
    ward.screen()
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    assert FIGURES_OF_MEMBERS not in page
    _, bundle = model
    old = champion_of_version_1(ward, bundle)
    path = write_image(ward.batch / "b.png", 2, malignant=True)
    ward.screen()
    row = next(row for row in rows(ward).values() if row["model_id"] == old and row["file_id"]
               == digest(path))  # fmt: skip
    grey = resize(decode(path.read_bytes(), RULES).grey, bundle.side)
    images = normalise(torch.from_numpy(grey)[None, None].float() / 255)
    logits = torch.stack(
        [member(images)[0] for member in load_members(bundle, ward.store, ward.means.scratch)]
    ).double()
    scaled = torch.softmax(logits / 2.0, dim=1)[:, 1]
    assert row["prob_malignant"] == pytest.approx(float(scaled.mean()), abs=1e-5)
    raw = torch.softmax(logits, dim=1)[:, 1]
    assert row["prob_raw"] == pytest.approx(float(raw.mean()), abs=1e-5)
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    assert str(escape(FIGURES_OF_MEMBERS)) in page
    assert page.count(f"Model <code>{old}</code>: ") == 1


def test_nights_of_before_raw_probabilities_stay_readable(ward: Ward) -> None:
    write_image(ward.batch / "a.png", 1)
    ward.screen()
    (key,) = ward.store.keys(table_prefix("screening"))
    part = pq.ParquetFile(io.BytesIO(ward.store.read(key))).read().drop_columns(["prob_raw"])
    buffer = io.BytesIO()
    pq.write_table(part, buffer)
    ward.store.write(key, buffer.getvalue())

    write_image(ward.batch / "b.png", 2)
    ward.screen()
    assert sum(row["prob_raw"] is not None for row in rows(ward).values()) == 1
    assert len(run_query(ward.store.url, "SELECT prob_raw FROM screening")) == 2
    assert sorted(row["prob_raw"] == "" for row in worklist(ward)) == [False, True]
    check_sums(ward)


def test_both_maps_of_the_referred_and_of_nobody_else(ward: Ward, model) -> None:
    import torch

    from thyro_core.explain.gradcam import grad_cams
    from thyro_core.imaging.decode import decode, resize
    from thyro_core.registry.ensemble import load_members
    from thyro_core.training.batches import normalise

    files = {}
    for i in range(16):
        path = write_image(ward.batch / f"{i}.png", i, malignant=True)
        files[digest(path)] = path
    ward.screen()
    referred = {key for key, row in rows(ward).items() if row["band"] == "refer"}
    assert referred
    cams = read_table(ward.store, "screening_cams").to_pylist()
    assert sorted((c["image_id"], c["target_class"]) for c in cams) == sorted(
        (image, target) for image in referred for target in (0, 1)
    )
    _, bundle = model
    members = load_members(bundle, ward.store, ward.means.scratch)
    cam = cams[1]
    grey = resize(decode(files[cam["image_id"]].read_bytes(), RULES).grey, bundle.side)
    images = normalise(torch.from_numpy(grey)[None, None].float() / 255)
    mean = np.mean([grad_cams(m, "resnet18", images)[1].numpy()[0, 1] for m in members], axis=0)
    stored = np.array(cam["map"], dtype=float).reshape(mean.shape) * cam["peak"]
    np.testing.assert_allclose(stored, mean, atol=2e-3 * mean.max())


def test_a_second_run_scores_nothing_and_changes_no_row(ward: Ward) -> None:
    mixed(ward)
    first = ward.screen()
    parts = {key: ward.store.read(key) for key in ward.store.keys("tables/screening")}
    cams = {key: ward.store.read(key) for key in ward.store.keys("tables/screening_cams")}
    lists = ward.store.read(worklist_key("2026-11-25", "csv"))
    second = ward.screen()
    assert second.totals == first.totals
    assert (second.counts.known, second.counts.fresh) == (second.counts.files, 0)
    assert {key: ward.store.read(key) for key in parts} == parts
    assert {key: ward.store.read(key) for key in cams} == cams
    assert ward.store.read(worklist_key("2026-11-25", "csv")) == lists
    assert not [key for key in ward.store.keys("screening") if key.endswith(".bin")]
    check_sums(ward)


def test_late_images_come_the_same_night_or_the_next(ward: Ward) -> None:
    early = [write_image(ward.batch / f"early{i}.png", i) for i in range(3)]
    ward.screen()
    late = [write_image(ward.batch / f"late{i}.png", 50 + i) for i in range(2)]
    again = ward.screen()
    assert (again.counts.known, again.counts.fresh) == (3, 2)
    assert again.totals.received == 5
    assert len(worklist(ward)) == 5
    later = write_image(ward.batch / "later.png", 70)
    next_night = ward.screen("2026-11-26")
    assert next_night.totals.received == 1
    assert rows(ward, "2026-11-26").keys() == {digest(later)}
    assert rows(ward, "2026-11-25").keys() == {digest(path) for path in [*early, *late]}
    assert [row["received"] for row in check_sums(ward)] == [5, 1]


def test_the_same_bytes_in_another_batch_are_a_copy(ward: Ward, tmp_path: Path) -> None:
    path = write_image(ward.batch / "a.png", 1)
    ward.screen()
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(path, other / "b.png")
    write_image(other / "c.png", 2)
    result = ward.screen(batch=str(other))
    assert (result.counts.known, result.totals.received, result.totals.copies) == (0, 2, 1)
    assert (result.whole.received, result.whole.copies) == (3, 1)
    assert len(worklist(ward)) == 3
    check_sums(ward)


def test_a_file_that_is_still_growing_waits(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_image(ward.batch / "whole.png", 1)
    growing = write_image(ward.batch / "growing.png", 2)
    gone = write_image(ward.batch / "gone.png", 3)
    from thyro_core.screening.files import FoundFile, stream_files

    listed = [
        file if file.name != "growing.png" else FoundFile(file.name, file.size - 10)
        for file in stream_files(str(ward.batch))
    ]
    gone.unlink()
    with monkeypatch.context() as patch:
        patch.setattr("tests.support.screened.blocks", lambda *_: iter([tuple(listed)]))
        result = ward.screen()
    assert (result.counts.late, result.counts.fresh) == (2, 1)
    assert rows(ward).keys() == {digest(whole)}
    said = b"met 3 files = 1 read + 0 passed over + 2 not whole"
    assert said in ward.store.read(worklist_key("2026-11-25", "html"))
    assert ward.screen().totals.received == 2
    assert rows(ward).keys() == {digest(whole), digest(growing)}


def test_a_file_that_may_not_be_read_is_listed_until_it_may(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(ward.batch / "secret.png", 1)

    def refuse(*_: object) -> bytes:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr("fsspec.implementations.local.LocalFileSystem.cat_file", refuse)
        patch.setattr(Store, "read", lambda store, key: Path(store.path(key)).read_bytes())
        result = ward.screen()
    assert (result.counts.late, result.totals.received, result.totals.failed) == (0, 1, 1)
    (row,) = worklist(ward)
    assert (row["reason"], row["file_id"]) == ("unreadable", "")
    check_sums(ward)
    result = ward.screen()
    assert (result.totals.received, result.totals.scored) == (1, 1), "its refusal is gone"
    check_sums(ward)


def test_each_empty_file_is_a_row_each_night_and_never_known(ward: Ward) -> None:
    for number in range(3):
        (ward.batch / f"{number}.png").touch()
    for _ in range(2):
        result = ward.screen()
        assert (result.counts.known, result.counts.fresh, result.totals.failed) == (0, 3, 3)
    assert {row["detail"] for row in worklist(ward)} == {"the file is empty"}
    write_image(ward.batch / "1.png", 1)
    result = ward.screen()
    assert (result.totals.received, result.totals.scored, result.totals.failed) == (3, 1, 2)
    result = ward.screen("2026-11-26")
    assert (result.counts.known, result.totals.failed) == (1, 2)
    check_sums(ward)


def test_what_cannot_be_read_is_accounted_for_and_the_night_goes_on(
    ward: Ward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.means = dataclasses.replace(ward.means, keep_names=True)
    outside = write_image(tmp_path / "outside.png", 7)
    write_image(ward.batch / "good.png", 1)
    write_image(Path(os.fsdecode(bytes(ward.batch) + b"/x_\xe9.png")), 2)
    (ward.batch / "link.png").symlink_to(outside)
    (ward.batch / "refused").mkdir()
    refuse_folder(monkeypatch, "refused")
    result = ward.screen()
    assert (result.totals.received, result.totals.scored) == (4, 2)
    fates = {row["name"]: (row["status"], row["reason"]) for row in worklist(ward)}
    assert fates.pop("./link.png") == ("rejected", "outside_link")
    assert fates.pop("./refused") == ("failed", "unreadable_folder")
    assert fates.keys() == {"./good.png", r"./x_\xe9.png"}
    assert {status for status, _ in fates.values()} == {"scored"}
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    assert "A link that leads out of the batch is not followed" in page
    reasons = unscored_reasons(ward.store, "2026-11-25", result.night.batch_id)
    assert reasons == {"outside_link": 1, "unreadable_folder": 1}
    result = ward.screen("2026-11-26")
    assert (result.counts.known, result.totals.received) == (2, 2), "listed until it is mended"
    check_sums(ward)


def test_what_was_refused_is_read_again_under_other_rules_or_decoders(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    coloured = [write_colour(ward.batch / f"{number}.png", number) for number in (7, 8, 9)]
    write_image(ward.batch / "good.png", 9)
    assert ward.screen().totals.rejected == 3
    assert ward.screen().counts.known == 4
    assert ward.screen("2026-11-26").counts.known == 4
    lenient = RULES.model_copy(update={"overlay_bound": 0.5})
    result = ward.screen("2026-11-26", rules=lenient)
    assert (result.counts.known, result.totals.scored) == (1, 3)
    result = ward.screen(rules=lenient)
    assert result.counts.known == 4, "scored is scored"
    assert ward.screen("2026-11-27").counts.known == 4
    page = ward.store.read(worklist_key("2026-11-27", "html")).decode()
    assert "refused them under the same rules and decoder versions" in page
    small = write_image(ward.batch / "small.png", 2, width=40, height=40)
    assert ward.screen("2026-11-27").totals.rejected == 1
    monkeypatch.setattr(reader, "version", lambda _: "another")
    result = ward.screen("2026-11-27")
    assert (result.counts.known, result.counts.fresh) == (4, 1)
    found = rows(ward, "2026-11-27")
    assert found.keys() == {digest(small)}, "one row a file"
    assert rows(ward, "2026-11-26").keys() == {digest(path) for path in coloured}
    check_sums(ward)


def test_a_refusal_gives_way_to_what_another_reading_finds_in_the_same_night(ward: Ward) -> None:
    coloured = write_colour(ward.batch / "colour.png", 1)
    clip = ward.batch / "clip"
    clip.write_bytes(dicom(np.stack([speckle(seed=seed) for seed in range(3)])))
    strict = RULES.model_copy(update={"max_clip_frames": 2})
    result = ward.screen(rules=strict)
    assert (result.totals.received, result.totals.rejected) == (2, 2)
    lenient = RULES.model_copy(update={"overlay_bound": 0.5})
    result = ward.screen(rules=lenient)
    assert (result.totals.received, result.totals.rejected) == (4, 0)
    assert rows(ward).keys() == {digest(coloured), digest(clip)}
    check_sums(ward)


def test_a_part_without_the_reading_is_gathered_with_new_chunks(ward: Ward) -> None:
    """What an older version wrote; its refusals are read again once."""
    write_colour(ward.batch / "colour.png", 1)
    write_image(ward.batch / "good.png", 2)
    ward.screen()
    (part,) = ward.store.keys("tables/screening/date=20261125")
    old = pq.ParquetFile(io.BytesIO(ward.store.read(part))).read().drop_columns(["reading_id"])
    with ward.store.writing(part) as out:
        pq.write_table(old, out)
    result = ward.screen()
    assert (result.counts.known, result.counts.fresh) == (1, 1)
    assert (result.totals.received, result.totals.rejected) == (2, 1)
    assert ward.screen().counts.known == 2
    check_sums(ward)


def test_a_file_that_kills_its_decoder_fails_alone_and_is_one_row(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thyro_core.imaging import sandbox
    from thyro_core.screening import file_images

    monkeypatch.setattr(file_images, "DecoderProcess", sandbox.DecoderProcess)
    monkeypatch.setattr(sandbox, "PROGRAM", deadly_reader.__name__)
    good = [write_image(ward.batch / f"good{i}.png", i) for i in range(4)]
    deadly = write_image(ward.batch / "deadly.png", 9)
    deadly.write_bytes(deadly.read_bytes() + deadly_reader.SEGV)
    result = ward.screen()
    found = rows(ward)
    assert found.keys() == {digest(path) for path in [*good, deadly]}
    assert (found[digest(deadly)]["status"], found[digest(deadly)]["reason"]) == (
        "failed", "crashed_decoder",
    )  # fmt: skip
    assert all(found[digest(path)]["status"] != "failed" for path in good)
    assert result.totals.failed == 1
    result = ward.screen()
    assert (result.counts.known, result.counts.fresh) == (4, 1), "a crash may pass: tried again"
    assert rows(ward) == found


class Crash(Exception):  # noqa: N818
    """The program dies here."""


def test_a_run_that_died_goes_on_and_ends_like_one_that_did_not(ward: Ward) -> None:
    mixed(ward)
    write_image(ward.batch / "0/more.png", 77)

    def die(number: int) -> None:
        if number == 1:
            raise Crash

    with pytest.raises(Crash):
        ward.screen(after_block=die)
    assert not ward.store.exists(worklist_key("2026-11-25", "csv"))
    left = [key for key in ward.store.keys("screening") if "/rows/" in key]
    done = sum(pq.ParquetFile(io.BytesIO(ward.store.read(key))).metadata.num_rows for key in left)
    assert 0 < done < 17
    result = ward.screen()
    # Nothing that the dead run had finished was done again.
    assert result.counts.known == done
    assert not [key for key in ward.store.keys("screening") if "/rows/" in key]
    died = read_table(ward.store, "screening")
    check_sums(ward)

    salt = ward.store.read(path_salt_key())
    shutil.rmtree(Path(ward.store.root) / "screening")
    shutil.rmtree(Path(ward.store.root) / "tables")
    ward.store.write(path_salt_key(), salt)
    assert ward.screen().totals == result.totals
    whole = read_table(ward.store, "screening")
    exact = [name for name in whole.column_names
             if name not in {"prob_malignant", "sd", "distance", "rank_key", "detail"}]  # fmt: skip
    assert died.select(exact).equals(whole.select(exact))


def test_what_a_dead_run_left_is_put_into_its_own_night(ward: Ward) -> None:
    files = [write_image(ward.batch / f"{i}.png", i) for i in range(3)]

    def die(_: int) -> None:
        raise Crash

    with pytest.raises(Crash):
        ward.screen("2026-11-25", after_block=die)
    result = ward.screen("2026-11-26")
    assert (result.totals.received, result.counts.known) == (0, 3)
    assert rows(ward, "2026-11-25").keys() == {digest(path) for path in files}
    assert len(worklist(ward)) == 3
    assert worklist(ward, "2026-11-26") == []
    batches = read_table(ward.store, "screening_batches").to_pylist()
    assert [(row["date"], row["received"], row["known"]) for row in batches] == [
        (20261125, 3, None), (20261126, 0, 3),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "writes", [n if n in {3, 6} else pytest.param(n, marks=pytest.mark.slow) for n in range(1, 9)]
)
def test_power_cuts_at_every_write_of_the_end(
    ward: Ward, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """A night ends with several writes; dying before any of them loses and doubles nothing."""
    for i in range(3):
        write_image(ward.batch / f"{i}.png", i, malignant=True)
    real, seen = Store.writing, Counter()

    def cut(self, key):
        if "worklist" in key or "/screening" in key or "pictures" in key or "sample" in key:
            seen["writes"] += 1
            if seen["writes"] == writes:
                raise Crash
        return real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "writing", cut)
        died = False
        try:
            ward.screen()
        except Crash:
            died = True
    assert died == (seen["writes"] >= writes)
    ward.screen()
    assert [row["received"] for row in check_sums(ward)] == [3]
    assert len(worklist(ward)) == 3
    referred = sum(row["band"] == "refer" for row in rows(ward).values())
    assert read_table(ward.store, "screening_cams").num_rows == 2 * referred


def test_no_name_and_no_birth_date_is_written(ward: Ward) -> None:
    (ward.batch / "Kowalska_Anna_19590307.dcm").write_bytes(dicom(speckle()))
    write_image(ward.batch / "Nowak Jan/PESEL-59030712345.png", 3)
    ward.screen()
    assert len(rows(ward)) == 2
    names = {"Kowalska", "Nowak", "PESEL", "19590307", *map(str, PERSON.values())}
    for key in ward.store.keys(""):
        data = ward.store.read(key)
        if key.endswith(".parquet") and "registry" not in key:
            data = json.dumps(
                pq.ParquetFile(io.BytesIO(data)).read().to_pylist(), default=str
            ).encode()
        for name in names:
            if len(name) > 3:
                assert name.encode() not in data, (key, name)
    assert {row["name"] for row in rows(ward).values()} == {None}


def test_names_are_kept_where_one_says_so(ward: Ward) -> None:
    ward.means = dataclasses.replace(ward.means, keep_names=True)
    path = write_image(ward.batch / "room3/=cmd()|x.png", 3)
    ward.screen()
    assert rows(ward)[digest(path)]["name"] == "room3/=cmd()|x.png"
    assert [row["name"] for row in worklist(ward)] == ["./room3/=cmd()|x.png"]


def test_a_file_above_the_bound_is_refused_unread(ward: Ward) -> None:
    path = write_image(ward.batch / "large.png", 1, width=200, height=200)
    ward.screen(rules=ScreeningRules(max_bytes=1024))
    row = rows(ward)[digest(path)]
    assert (row["status"], row["reason"]) == ("rejected", "too_large")
    assert row["detail"] == "more than max_bytes = 1024"


def test_frames_of_a_clip_are_images_of_one_file(ward: Ward) -> None:
    clip = ward.batch / "clip.dcm"
    clip.write_bytes(dicom(np.stack([speckle(seed=i) for i in range(5)])))
    result = ward.screen(rules=RULES.model_copy(update={"frames_per_clip": 3}))
    found = read_table(ward.store, "screening").to_pylist()
    assert (result.counts.fresh, result.counts.images, len(found)) == (1, 3, 3)
    assert {row["file_id"] for row in found} == {digest(clip)}
    assert len({row["image_id"] for row in found}) == 3
    assert ward.screen().counts.known == 1
    check_sums(ward)


def test_burned_in_text_is_not_shown(ward: Ward) -> None:
    for i in range(12):
        pixels = speckle(80, 96, seed=i).astype(float)
        pixels[20:60, 24:72] *= 0.3
        (ward.batch / f"{i}.dcm").write_bytes(
            dicom(np.clip(pixels, 0, 255).astype(np.uint8), BurnedInAnnotation="YES")
        )
    ward.screen()
    referred = [row for row in rows(ward).values() if row["band"] == "refer"]
    assert referred
    assert all(row["burned_in"] for row in referred)
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    assert "data:image/jpeg" not in page
    assert page.count("it may show a name") == len(referred)


def test_text_in_a_picture_is_painted_over_where_it_is_shown(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file says nothing of it; the network sees it, people do not."""
    everything = BandLimits(threshold=0.0, review_sds=0.0, outlier=math.inf, near=math.inf)
    monkeypatch.setattr(ScreeningModel, "limits", lambda *_: everything)
    for i in range(2):
        pixels = np.repeat(speckle(220, 90, seed=i), 4, axis=1).astype(float)
        pixels[80:180, 100:260] *= 0.3
        picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
        drawing = ImageDraw.Draw(picture)
        drawing.rectangle((0, 0, 360, 48), 0)
        drawing.text((8, 8), "DOE, JANE 1958", 235, ImageFont.load_default(30))
        picture.save(ward.batch / f"{i}.png")
    ward.screen()
    referred = [row for row in rows(ward).values() if row["band"] == "refer"]
    assert len(referred) == 2
    assert {(row["burned_in"], row["text_lines"]) for row in referred} == {(None, 1)}
    page = ward.store.read(worklist_key("2026-11-25", "html")).decode()
    jpegs = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(jpegs) == len(referred)
    for jpeg in jpegs:
        shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(jpeg))).convert("L")).astype(int)
        header = shown[3 : round(shown.shape[0] * 36 / 220), 6:90]
        assert (np.abs(np.diff(header, axis=1)) > 24).mean() < 0.02, "no letter is left"
    assert page.count("1 line of text found in the picture, painted over here") == len(referred)


def test_of_a_clip_one_frame_counts_for_drift(ward: Ward) -> None:
    for number in range(3):
        frames = np.stack([speckle(seed=10 * number + frame) for frame in range(4)])
        (ward.batch / f"clip{number}").write_bytes(dicom(frames))
    write_image(ward.batch / "still.png", 1)
    write_colour(ward.batch / "colour.png", 2)
    result = ward.screen()
    assert (result.totals.received, result.totals.scored) == (14, 13)
    assert (result.drift.n_received, result.drift.n_scored) == (5, 4)
    sample = drift_sample(ward.store, result.night)
    assert (sample.rows.num_rows, len(sample.embeddings)) == (5, 4)
    (row,) = read_table(ward.store, "screening_batches").to_pylist()
    assert row["share_rejected"] == pytest.approx(1 / 5)


def test_of_a_patient_one_still_counts_for_drift(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", "k" * 32)
    for number in range(6):
        (ward.batch / f"{number}.dcm").write_bytes(
            dicom(speckle(seed=number), PatientID="AB"[number % 2])
        )
    write_image(ward.batch / "still.png", 1)
    result = ward.screen()
    assert (result.drift.n_received, result.drift.n_scored) == (7, 7)
    assert "3 patients, or files of unknown ones (7 files)," in result.drift.text
    sample = drift_sample(ward.store, result.night)
    assert (sum(sample.rows["counts"].to_pylist()), len(sample.embeddings)) == (3, 3)
    assert sum(sample.rows["is_drawn"].to_pylist()) == 3


def test_of_a_patient_one_file_is_drawn_for_the_share_that_is_rejected(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THYRO_PSEUDONYM_KEY", "k" * 32)
    for number in range(8):
        pixels = speckle(seed=number) if number % 2 else np.full((96, 128), number, np.uint8)
        (ward.batch / f"{number}.dcm").write_bytes(dicom(pixels, PatientID="ABCD"[number // 2]))
    night = ward.screen().night
    rows = read_table(ward.store, "screening").to_pandas()
    drawn = rows.sort_values("image_id").groupby("patient_id")["status"].first()
    sample = drift_sample(ward.store, night).rows.to_pandas()
    assert len(drawn) == sample["is_drawn"].sum() == 4
    expected = (drawn == "scored").sum()
    assert (sample[sample["is_drawn"]]["status"] == "scored").sum() == expected
    assert (sample[sample["counts"]]["status"] == "scored").sum() == 4


def test_a_small_batch_is_judged_with_those_before_it(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many as it takes; which images are scored is the model's affair."""
    minimum = 6
    monkeypatch.setattr(
        "thyro_core.screening.night.DriftThresholds", lambda: DriftThresholds(minimum=minimum)
    )
    reports = []
    for night, date in enumerate(("2026-11-23", "2026-11-24", "2026-11-25")):
        for number in range(4):
            write_image(ward.batch / f"{night}-{number}.png", 10 * night + number)
        if night == 2:
            write_colour(ward.batch / "colour.png", 99)
        reports.append(ward.screen(date).drift)
    rows = read_table(ward.store, "screening_batches").sort_by("date").to_pylist()
    scored = [row["scored"] for row in rows]
    pools = [
        next((k for k in range(1, n + 2) if sum(scored[n + 1 - k : n + 1]) >= minimum), 1)
        for n in range(3)
    ]
    assert pools[0] == 1
    assert pools[2] > 1
    assert [row["pooled_batches"] for row in rows] == pools
    first, _, third = reports
    assert first.too_few.startswith(f"too few to judge: {scored[0]} files with a scored image, at")
    assert math.isnan(first.values["psi_score"])
    assert third.too_few is None
    assert third.text.startswith("Judged together with the ")
    assert third.values["share_rejected"] == pytest.approx(1 - scored[2] / 5), "of it alone"
    scores = read_table(ward.store, "screening").to_pandas()
    since = 20261126 - pools[2]
    both = scores[(scores["date"] >= since) & (scores["status"] == "scored")]
    training = reference(ward.store, rows[0]["model_id"])
    expected = compare_with_training(
        training,
        pa.Table.from_pandas(both[["status", "prob_malignant", "mean", "sharpness"]]),
        DriftThresholds(minimum=minimum),
    )
    for name in ("psi_score", "ks_score", "psi_mean", "ks_sharpness"):
        assert third.values[name] == pytest.approx(expected.values[name], abs=1e-12), name
    page = drift_page(read_table(ward.store, "screening_batches"), DriftThresholds())
    n_pooled = sum(pool > 1 for pool in pools)
    assert f"to be judged ({n_pooled} of them together with batches before them)" in page


def test_an_empty_batch_is_a_night_without_images(ward: Ward) -> None:
    result = ward.screen()
    assert result.totals == Totals(0, 0, 0, 0, 0, 0, 0)
    assert worklist(ward) == []
    assert [row["received"] for row in read_table(ward.store, "screening_batches").to_pylist()] == [
        0
    ]


def test_a_lost_row_is_noticed_before_anything_is_put_away(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(ward.batch / "a.png", 1)
    from thyro_core.screening import store as screening_store

    real = screening_store.write_merged
    with monkeypatch.context() as patch:
        patch.setattr(screening_store, "write_merged", lambda *a: real(*a) - 1)
        with pytest.raises(ThyroError, match=r"expected 1 images, wrote 0; the chunks are kept"):
            ward.screen()
    assert [key for key in ward.store.keys("screening") if "/rows/" in key]
    assert ward.screen().totals.received == 1


def test_the_figures_of_a_night_are_in_its_row(ward: Ward, model) -> None:
    mixed(ward)
    result = ward.screen()
    (row,) = read_table(ward.store, "screening_batches").to_pylist()
    assert row["model_id"] == model[1].model_id
    assert json.loads(row["rules"]) == json.loads(RULES.model_dump_json())
    assert row["share_rejected"] == pytest.approx(1 - row["scored"] / row["received"])
    for name in ("received", "scored", "rejected", "failed", "refer", "review", "routine"):
        assert row[name] == getattr(result.totals, name)
    assert sum(row[name] for name in ("refer", "review", "routine")) == row["scored"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"date": "tomorrow"}, "date: expected one such as 2026-11-25"),
        ({"batch": "/no/such/batch"}, "expected a folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(ward: Ward, options, said) -> None:
    with pytest.raises(InputError, match=said):
        ward.screen(**options)
    assert not ward.store.keys("screening")


def test_a_batch_is_the_same_from_whichever_folder_it_is_named(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(ward.batch / "a.png", 1)
    first = ward.screen()
    monkeypatch.chdir(ward.batch.parent)
    second = ward.screen(batch=ward.batch.name)
    assert second.night == first.night
    assert second.counts.known == 1
    assert first.night.batch == f"file://{ward.batch}"
