"""Several image sets as one, each a centre."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thyro_core.config import IngestConfig, StudyConfig
from thyro_core.datasets.joined_sources import Sources, centre_names, read_sources
from thyro_core.datasets.manifest import ingest
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError
from thyro_core.store.store import open_store

RULES = IngestConfig(min_side=8, blur_bound=0)


def image_set(folder: Path, first: int, header: str = "image,label,patient_id") -> str:
    """Eight images of four patients, called alike in each set."""
    folder.mkdir(parents=True)
    lines = [header]
    for i in range(8):
        grey = np.random.default_rng(first + i).integers(0, 200, (9, 12), np.uint8)
        Image.fromarray(grey).resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{i // 2 % 2},p{i // 2}" + ",x" * (header.count(",") - 2))
    (folder / "labels.csv").write_text("\n".join(lines))
    return str(folder)


@pytest.fixture
def sources(tmp_path) -> Sources:
    return Sources((image_set(tmp_path / "north", 0), image_set(tmp_path / "south", 100)))


def test_each_set_is_a_centre_and_its_patients_are_its_own(sources) -> None:
    joined = read_sources(sources, RULES)
    assert [entry.name for entry in joined.entries[:2]] == ["north/0.png", "north/1.png"]
    assert {entry.attributes["centre"] for entry in joined.entries} == {"north", "south"}
    assert len({entry.patient for entry in joined.entries}) == 8, "p0 of one is not p0 of the other"


def test_they_are_ingested_and_split_by_centre(sources, tmp_path) -> None:
    store = open_store(str(tmp_path / "store"))
    manifest = ingest(sources, RULES, store, [64])
    rows = [row for row in manifest.table.to_pylist() if row["included"]]
    assert len(rows) == 16
    assert {row["uri"].split("/")[-2] for row in rows} == {"north", "south"}
    config = StudyConfig(scheme="leave_one_centre_out", splits=2)
    splits = make_splits("s", manifest.table, config).to_pylist()
    centre = {row["image_id"]: json.loads(row["attributes"])["centre"] for row in rows}
    tested = [
        {centre[row["image_id"]] for row in splits if (row["split"], row["role"]) == (n, "test")}
        for n in range(2)
    ]
    assert tested == [{"north"}, {"south"}]
    # The packs are made from either set's own address.
    again = ingest(sources, RULES, store, [64, 80])
    assert again.manifest_id == manifest.manifest_id


def test_one_source_is_read_as_it_always_was(sources, tmp_path) -> None:
    (north, _) = sources.addresses
    store = open_store(str(tmp_path / "store"))
    alone = ingest(Sources((north,)), RULES, store, [64])
    assert alone.manifest_id == ingest(north, RULES, store, [64]).manifest_id
    assert set(alone.table["attributes"].to_pylist()) == {"{}"}


def test_folders_of_one_name_are_told_apart_by_those_above(tmp_path) -> None:
    addresses = [str(tmp_path / name / "images") for name in ("north", "south")]
    assert centre_names(addresses) == ["north-images", "south-images"]
    with pytest.raises(InputError, match=r"a different folder for each centre, found .*north"):
        centre_names([addresses[0], addresses[0]])


def test_a_set_that_has_the_column_already_is_refused_with_the_cure(tmp_path) -> None:
    header = "image,label,patient_id,Centre"
    sources = Sources((image_set(tmp_path / "a", 0, header), image_set(tmp_path / "b", 100)))
    with pytest.raises(InputError, match="a: of several image sets each is a centre, found a col"):
        read_sources(sources, RULES)
    other = Sources(sources.addresses, "hospital")
    entries = read_sources(other, RULES).entries
    assert entries[0].attributes == {"Centre": "x", "hospital": "a"}


def test_notes_say_of_which_centre_they_are(tmp_path) -> None:
    sources = Sources((image_set(tmp_path / "a", 0), image_set(tmp_path / "b", 100)))
    (tmp_path / "b" / "film.mov").write_bytes(b"x")
    assert "b: files not taken as images: 1 .mov" in read_sources(sources, RULES).notes
