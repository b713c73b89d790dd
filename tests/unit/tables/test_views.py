"""A query joins a study to its own images: one row a prediction, however often a set came in."""

import json
from pathlib import Path

import pytest

from thyro_core.config import StudyConfig
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store, open_store
from thyro_core.tables import schemas
from thyro_core.tables.io import write_table
from thyro_core.tables.query import run_query

STUDY = "s0123456789abcdef"
CONFIG = json.dumps(StudyConfig(threshold=0.25).model_dump(mode="json"))
SCORES = {"aa": 0.25, "bb": 0.2, "cc": 0.75}


def put(store: Store, name: str, rows: list[dict[str, object]], **keys: str | int) -> None:
    empty = dict.fromkeys(schemas.TABLES[name].schema.names)
    table = schemas.rows_to_table(name, [empty | keys | row for row in rows])
    write_table(store, name, table, **keys)


def ingested(store: Store, manifest_id: str, folder: str) -> None:
    """Three images; the first stands in the folder twice, and one file is missing."""
    rows: list[dict[str, object]] = [
        {"image_id": name, "uri": f"{folder}/{name}.png", "included": True, "group_id": name}
        for name in SCORES
    ]
    rows.append(rows[0] | {"uri": f"{folder}/a copy.png", "included": False})
    rows.append({"image_id": None, "uri": f"{folder}/gone.png", "included": False})
    put(store, "images", rows, manifest_id=manifest_id)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A set that was ingested three times with other rules, and a study of the second manifest."""
    store = open_store(str(tmp_path))
    for manifest_id in ("m1", "m2", "m3"):
        ingested(store, manifest_id, f"file:///{manifest_id}")
    rows: list[dict[str, object]] = [
        {"image_id": name, "label": int(score > 0.5), "prob_malignant": score}
        for name, score in SCORES.items()
    ]
    for split in (0, 1):
        put(store, "predictions", rows, study_id=STUDY, split=split, architecture="vgg16")
    put(store, "splits", [{"split": 0, "image_id": "aa"}], study_id=STUDY)
    return store


ASK = "SELECT * FROM predictions_by_image ORDER BY split, image_id"


def expected_rows() -> list[tuple[object, ...]]:
    calls = {"aa": 1, "bb": 0, "cc": 1}
    return [
        (split, name, f"file:///m2/{name}.png", name, SCORES[name], calls[name])
        for split in (0, 1)
        for name in SCORES
    ]


def shown(store: Store) -> list[tuple[object, ...]]:
    names = ("split", "image_id", "uri", "group_id", "prob_malignant", "call")
    return [tuple(row[name] for name in names) for row in run_query(store.url, ASK).to_pylist()]


def test_a_prediction_is_one_row_with_its_own_image(store: Store) -> None:
    put(store, "studies", [{"manifest_id": "m2", "config": CONFIG}], study_id=STUDY)
    naive = "SELECT * FROM predictions JOIN images USING (image_id)"
    assert run_query(store.url, naive).num_rows > 6, "the trap that the view is for"
    assert shown(store) == expected_rows()


def test_a_study_of_an_older_version_is_joined_by_its_plan(store: Store) -> None:
    plan = {"study_id": STUDY, "manifest_id": "m2", "config": json.loads(CONFIG)}
    store.write(study_key(STUDY), json.dumps(plan).encode())
    assert shown(store) == expected_rows()
    (row,) = run_query(store.url, f"FROM studies WHERE study_id = '{STUDY}'").to_pylist()
    assert (row["manifest_id"], row["state"], row["started"]) == ("m2", None, None)
    assert run_query(store.url, "FROM studies WHERE study_id = 's1'").num_rows == 0


@pytest.mark.parametrize("plan", [None, b"{", b"[]", b'{"manifest_id": "m2"}'])
def test_without_a_plan_the_predictions_stay_without_their_images(
    store: Store, plan: bytes | None
) -> None:
    if plan is not None:
        store.write(study_key(STUDY), plan)
    assert [row[2] for row in shown(store)] == [None] * 6


def test_the_images_of_a_study_are_each_there_once(store: Store) -> None:
    put(store, "studies", [{"manifest_id": "m2", "config": CONFIG}], study_id=STUDY)
    rows = run_query(store.url, "SELECT * FROM images_by_study ORDER BY image_id").to_pylist()
    assert [(row["image_id"], row["included"]) for row in rows] == [(x, True) for x in SCORES]
    assert {row["manifest_id"] for row in rows} == {"m2"}
