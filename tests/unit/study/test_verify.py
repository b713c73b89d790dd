"""Each kind of damage to a finished study fails exactly its own check and names the culprit."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import NoCredentialsError
from fsspec.implementations.local import LocalFileSystem
from PIL import Image
from safetensors.numpy import save_file

from tests.support.remember import remember
from thyro_core.config import StudyConfig
from thyro_core.datasets.attributes import image_nodules
from thyro_core.datasets.manifest import ingest
from thyro_core.datasets.packs import image_proportions, open_pack, pack_index
from thyro_core.datasets.splits import make_splits
from thyro_core.errors import InputError
from thyro_core.evaluation.tables import metrics_table
from thyro_core.explain import families
from thyro_core.explain.features import feature_rows, features_table
from thyro_core.explain.maps import cams_table, stored_maps
from thyro_core.explain.tables import cam_checks_table, cam_families_table, cam_tests_table
from thyro_core.store.keys import (
    manifest_key,
    mask_key,
    model_key,
    pack_key,
    run_key,
    study_key,
    table_key,
)
from thyro_core.store.store import Store, open_store
from thyro_core.study.derived import DERIVED_TABLES, derived_table
from thyro_core.study.plan import StudyPlan, load_plan, make_plan, save_plan
from thyro_core.study.records import runs_table, train_aucs
from thyro_core.study.verify import object_checks, table_checks, verify
from thyro_core.study.verify.verify import verify_study
from thyro_core.tables import schemas
from thyro_core.tables.io import read_table, write_table
from thyro_core.training.pretrained import resolve_weights

CONFIG = StudyConfig(
    architectures=("resnet18", "inception_v3"),
    splits=2,
    epochs=2,
    image_size=64,
    resamples=100,
    blur_bound=0.0,
)
FIGURES = (
    "cam_checks_table", "cam_families_table", "cam_tests_table", "metrics_table",
)  # fmt: skip
DERIVED_FROM = ("images", "metrics", "predictions", "splits")
SIDES = (64, 85)
TABLES = [f"table {name}" for name in ("images", *schemas.STUDY_TABLES)]
ON_MAPS = (
    "ensemble, calibration, operating_points, predictive_values, subgroups, centres, "
    "readers, shortcuts, "
    "cams, cam_features, cam_trust, cam_tests, cam_families, cam_checks"
)
NAMES = [
    "plan", *TABLES, "studies", "manifest", "images", "packs", "weights", "splits", "leakage",
    "completeness", "runs", "models", "predictions", "metrics", "comparisons", "ensemble",
    "calibration", "operating_points", "predictive_values", "subgroups", "centres", "readers",
    "shortcuts",
    "cams",
    "cam_features", "cam_trust", "cam_tests", "cam_families", "cam_checks",
]  # fmt: skip
RUNS = [(split, name) for split in range(CONFIG.splits) for name in CONFIG.architectures]


def write_images(folder: Path) -> None:
    """12 benign, 12 malignant images of noise, two a patient; the first has a mask."""
    rng = np.random.default_rng(0)
    lines = ["image,label,patient_id"]
    folder.mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (80, 96), np.uint8)).save(folder / f"{i:02}.png")
        lines.append(f"{i:02}.png,{('benign', 'malignant')[i % 2]},p{i // 4}{i % 2}")
    (folder / "labels.csv").write_text("\n".join(lines))
    mask = np.zeros((80, 96), np.uint8)
    mask[20:50, 30:60] = 255
    (folder / "masks").mkdir()
    Image.fromarray(mask).save(folder / "masks" / "00.png")


def prediction_rows(tests, keys, rng) -> pa.Table:
    rows = []
    for row in tests.to_pylist():
        benign, malignant = (float(np.float32(value)) for value in rng.normal(size=2))
        # Written out: an independent spelling of the softmax.
        share = np.exp(malignant) / (np.exp(malignant) + np.exp(benign))
        rows.append(
            {name: row[name] for name in ("image_id", "patient_id", "label")}
            | {"logit_benign": benign, "logit_malignant": malignant, "prob_malignant": share}
            | keys
        )
    return schemas.rows_to_table("predictions", rows)


def write_run(store: Store, study_id: str, split: int, architecture: str) -> None:
    """What a job leaves behind, its numbers made up."""
    keys = {"study_id": study_id, "split": split, "architecture": architecture}
    rng = np.random.default_rng((split, len(architecture)))
    splits = read_table(store, "splits", study_id=study_id)
    tests = splits.filter((pc.field("split") == split) & (pc.field("role") == "test"))
    write_table(store, "predictions", prediction_rows(tests, keys, rng), **keys)
    maps = rng.random((tests.num_rows, 2, 3, 3), dtype=np.float32)
    image_ids = tests["image_id"].to_pylist()
    cams = cams_table(keys, image_ids, "layer4", maps)
    write_table(store, "cams", cams, **keys)
    write_map_tables(store, tests, cams, keys)
    epochs = [
        keys
        | {"epoch": epoch, "loss": 0.5, "val_loss": None, "learning_rate": 1e-4}
        | {"seconds": 1.0, "images_per_second": 8.0}
        for epoch in (1, 2)
    ]
    write_table(store, "epochs", schemas.rows_to_table("epochs", epochs), **keys)
    model = rng.bytes(100)
    store.write(model_key(**keys), model)
    record = dict.fromkeys(schemas.TABLES["runs"].schema.names) | keys
    record |= {"status": "finished", "started": "2026-01-02T03:04:05+00:00", "seconds": 1.5}
    record |= {"model_sha256": hashlib.sha256(model).hexdigest()}
    store.write(run_key(**keys), json.dumps(record).encode())


def write_map_tables(store: Store, tests: pa.Table, cams: pa.Table, keys) -> None:
    manifest_id = load_plan(store, keys["study_id"]).manifest_id
    table = read_table(store, "images", manifest_id=manifest_id)
    index, proportions = pack_index(table), image_proportions(table, CONFIG)
    side = CONFIG.side(keys["architecture"])
    pack = open_pack(store, manifest_id, side, Path("/tmp/thyro-test-scratch"), len(index))
    maps = stored_maps(cams.filter(pc.field("target_class") == 1))
    features, trust = [], []
    for row, cam in zip(tests.to_pylist(), maps, strict=True):
        named = {name: row[name] for name in ("image_id", "label")}
        image = row["image_id"]
        features += feature_rows(
            *named.values(), cam, pack[index[image]], height_to_width=proportions[image]
        )
        trust.append(dict.fromkeys(schemas.TABLES["cam_trust"].schema.names) | named | keys)
    write_table(store, "cam_features", features_table(keys, features), **keys)
    write_table(store, "cam_trust", schemas.rows_to_table("cam_trust", trust), **keys)


def conclude(store: Store, study_id: str) -> None:
    plan = load_plan(store, study_id)
    write_table(store, "runs", runs_table(store, plan), study_id=study_id)
    splits = read_table(store, "splits", study_id=study_id)
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    predictions = read_table(store, "predictions", study_id=study_id)
    extra = {"nodules": image_nodules(images), "train_aucs": train_aucs(store, plan)}
    metrics = metrics_table(study_id, predictions, splits, CONFIG, **extra)
    write_table(store, "metrics", metrics, study_id=study_id)
    tables = {"predictions": predictions, "splits": splits, "images": images, "metrics": metrics}
    for name in DERIVED_TABLES:
        write_table(store, name, derived_table(name, plan, tables), study_id=study_id)
    for name, make, of in (
        ("cam_families", cam_families_table, "cam_features"),
        ("cam_checks", cam_checks_table, "cam_trust"),
    ):  # fmt: skip
        table = make(study_id, read_table(store, of, study_id=study_id), splits, CONFIG)
        write_table(store, name, table, study_id=study_id)
    sources = (read_table(store, of, study_id=study_id) for of in ("cam_features", "predictions"))
    tests = cam_tests_table(study_id, *sources, splits, config=CONFIG)
    write_table(store, "cam_tests", tests, study_id=study_id)


def build(folder: Path, store: Store) -> str:
    """A finished study without any training; its images lie in `folder`/images."""
    write_images(folder / "images")
    mirror = folder / "mirror"
    mirror.mkdir()
    for name in CONFIG.architectures:
        save_file({name: np.arange(5.0)}, mirror / f"{name}.safetensors")
    manifest = ingest(str(folder / "images"), CONFIG.ingest(), store, SIDES)
    weights = resolve_weights(str(mirror), CONFIG.architectures, None, store, folder / "scratch")
    plan = make_plan(CONFIG, manifest.manifest_id, "fp32", weights, ())
    save_plan(store, plan)
    splits = make_splits(plan.study_id, manifest.table, CONFIG)
    write_table(store, "splits", splits, study_id=plan.study_id)
    for split, architecture in RUNS:
        write_run(store, plan.study_id, split, architecture)
    conclude(store, plan.study_id)
    return plan.study_id


@pytest.fixture(scope="module", autouse=True)
def few_repeats():
    """The tests verify dozens of times: one repeat of each cross-validation, nothing done twice.

    Figures that follow from undamaged tables are the same in every test; those that follow from
    damaged ones are worked out.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "REPEATS", 1)
        patch.setattr(families, "PERMUTATIONS", 9)
        for name in FIGURES:
            patch.setattr(verify, name, remember(getattr(verify, name)))
        derive = remember(derived_table)

        def derive_from_sources(name: str, plan: StudyPlan, tables) -> pa.Table:
            return derive(name, plan, {source: tables[source] for source in DERIVED_FROM})

        patch.setattr(verify, "derived_table", derive_from_sources)
        yield


@pytest.fixture(scope="module")
def finished(few_repeats, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, build(folder, open_store(str(folder / "store")))


@pytest.fixture
def store(finished, tmp_path) -> Store:
    """A copy of the finished study that a test may damage; the images are shared."""
    shutil.copytree(finished[0] / "store", tmp_path / "store")
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def study_id(finished) -> str:
    return finished[1]


@pytest.fixture
def manifest_id(store, study_id) -> str:
    return load_plan(store, study_id).manifest_id


@pytest.fixture
def image(store, manifest_id):
    """An included image's id and file; the file is put back afterwards."""
    row = read_table(store, "images", manifest_id=manifest_id).to_pylist()[0]
    path = Path(row["uri"].removeprefix("file://"))
    before = path.read_bytes()
    yield row["image_id"], path
    path.write_bytes(before)


def failures(store: Store, study_id: str) -> dict[str, str]:
    return {
        check.name: check.detail for check in verify_study(store, study_id) if not check.is_passed
    }


def only_failure(store: Store, study_id: str, name: str) -> str:
    found = failures(store, study_id)
    assert list(found) == [name], found
    return found[name]


def flip(store: Store, key: str, place: int = -1) -> None:
    data = bytearray(store.read(key))
    data[place] ^= 1
    store.write(key, bytes(data))


def rewrite(store: Store, name: str, change, **keys) -> None:
    """Change the rows of a table's part and write it again."""
    rows = read_table(store, name, **keys).to_pylist()
    change(rows)
    write_table(store, name, schemas.rows_to_table(name, rows), **keys)


def run_keys(study_id: str, split: int = 1, architecture: str = "resnet18") -> dict[str, str | int]:
    return {"study_id": study_id, "split": split, "architecture": architecture}


def test_a_finished_study_passes_every_check(store, study_id):
    checks = list(verify_study(store, study_id))
    assert [check.name for check in checks] == NAMES
    assert all(check.is_passed for check in checks), checks
    detail = {check.name: check.detail for check in checks}
    assert detail["images"].startswith("24 files have the recorded bytes, 0 cannot")
    assert detail["packs"] == "sides 64, 85; 20 images equal a fresh decode"
    assert detail["models"] == "4 kept models"
    assert detail["weights"] == "2 files, 0 random starts"
    assert detail["completeness"] == "4 of 4 runs are finished"


def test_it_verifies_in_an_object_store_too(tmp_path):
    store = open_store(f"memory://verify-{tmp_path.name}")
    study_id = build(tmp_path, store)
    assert failures(store, study_id) == {}
    key = model_key(**run_keys(study_id))
    flip(store, key)
    assert key in only_failure(store, study_id, "models")


def test_an_unknown_study_is_an_input_error(store):
    with pytest.raises(InputError, match="expected a study s0, found"):
        list(verify_study(store, "s0"))


def test_nothing_is_written(store, study_id):
    before = {key: store.read(key) for key in store.keys("")}
    list(verify_study(store, study_id))
    assert {key: store.read(key) for key in store.keys("")} == before


def change_plan(store, study, values) -> None:
    key = study_key(study)
    store.write(key, json.dumps(json.loads(store.read(key)) | values).encode())


def test_a_plan_whose_contents_give_another_id(store, study_id):
    change_plan(store, study_id, {"precision": "bf16"})
    assert study_id in only_failure(store, study_id, "plan")


def test_a_plan_that_names_another_study(store, study_id):
    change_plan(store, study_id, {"study_id": "s1"})
    assert "names study s1" in only_failure(store, study_id, "plan")


def test_a_plan_of_another_recipe(store, study_id):
    change_plan(store, study_id, {"recipe": 99})
    detail = only_failure(store, study_id, "plan")
    assert "found 99" in detail
    assert "version that made the study" in detail


def test_of_another_recipe_only_files_are_checked(store, study_id, manifest_id):
    """Its tables may have other columns, and its figures follow from other rules."""
    change_plan(store, study_id, {"recipe": 3})
    key = table_key("metrics", study_id=study_id)
    with store.writing(key) as file:
        older = read_table(store, "metrics", study_id=study_id).drop_columns(["level"])
        pq.write_table(older, file)
    key = table_key("images", manifest_id=manifest_id)
    with store.writing(key) as file:
        older = read_table(store, "images", manifest_id=manifest_id)
        pq.write_table(older.drop_columns(["text_boxes", "views"]), file)
    only_failure(store, study_id, "plan")
    names = [check.name for check in verify_study(store, study_id)]
    assert names == ["plan", "table images", "images", "weights", "table runs", "models"]
    flip(store, model_key(**run_keys(study_id)))
    assert list(failures(store, study_id)) == ["plan", "models"]


def test_columns_that_joined_a_table_later_may_lack_and_no_others(store, study_id, manifest_id):
    key = table_key("images", manifest_id=manifest_id)
    whole = read_table(store, "images", manifest_id=manifest_id)
    with store.writing(key) as file:
        pq.write_table(whole.drop_columns(["text_boxes"]), file)
    assert failures(store, study_id) == {}
    with store.writing(key) as file:
        pq.write_table(whole.drop_columns(["text_boxes", "views"]), file)
    # A fact that the shortcuts rest on.
    assert list(failures(store, study_id)) == ["shortcuts"]
    with store.writing(key) as file:
        pq.write_table(whole.drop_columns(["text_boxes", "sharpness"]), file)
    assert "sharpness" in only_failure(store, study_id, "table images")


@pytest.mark.parametrize("name", sorted(set(schemas.LATER_COLUMNS) & set(DERIVED_TABLES)))
def test_figures_that_an_older_program_did_not_compute_are_no_fault(store, study_id, name):
    later = schemas.LATER_COLUMNS[name]
    whole = read_table(store, name, study_id=study_id)
    # By the facts of whole files only where the networks see something else.
    computed = later - {"file_auc"}
    assert all(whole[column].null_count == 0 for column in computed), "this program computes them"
    with store.writing(table_key(name, study_id=study_id)) as file:
        pq.write_table(whole.drop_columns(sorted(later)), file)
    assert failures(store, study_id) == {}

    def alter(rows):
        for row in rows:
            row.update(dict.fromkeys(later))
        rows[0][min(later)] = 0.25

    rewrite(store, name, alter, study_id=study_id)
    assert f"{min(later)} is 0.25, expected" in only_failure(store, study_id, name)


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"study_id": "s"}', b"\xff"])
def test_an_unreadable_plan_is_one_failed_check(store, study_id, data):
    store.write(study_key(study_id), data)
    (check,) = verify_study(store, study_id)
    assert (check.name, check.is_passed) == ("plan", False)
    assert study_key(study_id) in check.detail


def test_changed_bytes_of_an_image(store, study_id, image):
    image_id, path = image
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(bytes(data))
    detail = only_failure(store, study_id, "images")
    assert detail.startswith(f"image {image_id[:12]} has other bytes now;")


def test_at_most_five_changed_images_are_named(finished, store, study_id):
    files = sorted((finished[0] / "images").glob("*.png"))[:7]
    before = {path: path.read_bytes() for path in files}
    try:
        for path in files:
            path.write_bytes(b"")
        detail = only_failure(store, study_id, "images")
    finally:
        for path, data in before.items():
            path.write_bytes(data)
    assert detail.count("has other bytes") == 5
    assert "(and 2 more)" in detail


def test_images_that_are_gone_are_counted_not_failed(store, study_id, image):
    image[1].unlink()
    found = {check.name: check for check in verify_study(store, study_id)}
    assert all(check.is_passed for check in found.values())
    assert found["images"].detail.startswith("23 files have the recorded bytes, 1 cannot")
    assert found["packs"].detail == "sides 64, 85; 19 images equal a fresh decode"


@pytest.mark.parametrize("error", [PermissionError("no"), NoCredentialsError()])
def test_a_place_that_lets_nobody_in_counts_as_gone(
    store, study_id, manifest_id, monkeypatch, error
):
    images = read_table(store, "images", manifest_id=manifest_id)

    def refuse(*args, **options):
        raise error

    monkeypatch.setattr(LocalFileSystem, "open", refuse)
    assert object_checks.changed_images(images) == ([], 24)
    assert object_checks.sample_images(images, CONFIG) == {}


def test_a_damaged_model(store, study_id):
    key = model_key(**run_keys(study_id))
    flip(store, key)
    detail = only_failure(store, study_id, "models")
    assert detail.startswith(f"{key}: expected SHA-256")


def test_a_model_that_is_gone(store, study_id):
    key = model_key(**run_keys(study_id))
    store.delete(key)
    assert f"{key}: expected SHA-256" in only_failure(store, study_id, "models")


def test_damaged_starting_weights(store, study_id):
    (key, _) = store.keys("weights")
    flip(store, key)
    assert only_failure(store, study_id, "weights").startswith(f"{key}: expected SHA-256")


def test_a_pack_cut_short(store, study_id, manifest_id):
    key = pack_key(manifest_id, 85)
    store.write(key, store.read(key)[:-1])
    detail = only_failure(store, study_id, "packs")
    assert detail.startswith(f"{key}: expected uint8 (24, 85, 85) in 173528 bytes")
    assert "in 173527" in detail


@pytest.mark.parametrize(
    "pack", [np.zeros((23, 64, 64), np.uint8), np.zeros((24, 64, 64), np.int8)]
)
def test_a_pack_of_another_shape_or_type(store, study_id, manifest_id, pack):
    key = pack_key(manifest_id, 64)
    with store.writing(key) as file:
        np.save(file, pack)
    assert f"found {pack.dtype} {pack.shape}" in only_failure(store, study_id, "packs")


@pytest.mark.parametrize("data", [b"", b"not a pack at all"])
def test_a_pack_that_is_no_array(store, study_id, manifest_id, data):
    store.write(pack_key(manifest_id, 64), data)
    assert "found no array" in only_failure(store, study_id, "packs")


def test_a_pack_that_is_gone(store, study_id, manifest_id):
    key = pack_key(manifest_id, 64)
    store.delete(key)
    assert only_failure(store, study_id, "packs").startswith(f"{key} is not there")


def test_a_pack_with_other_pixels(store, study_id, manifest_id):
    key = pack_key(manifest_id, 64)
    flip(store, key)
    last = read_table(store, "images", manifest_id=manifest_id)["image_id"].to_pylist()[-1]
    assert f"row 23 is not image {last[:12]}" in only_failure(store, study_id, "packs")


def test_masks_that_are_gone_or_cut_short(store, study_id, manifest_id):
    key = mask_key(manifest_id)
    data = store.read(key)
    store.write(key, data[:-1])
    detail = only_failure(store, study_id, "packs")
    assert detail.startswith(f"{key}: expected uint8 (24, 224, 224) in {len(data)} bytes")
    store.delete(key)
    assert only_failure(store, study_id, "packs").startswith(f"{key} is not there")


def test_packs_with_their_rows_in_another_order(store, study_id, manifest_id):
    key = pack_key(manifest_id, 64)
    data = store.read(key)
    pixels = np.frombuffer(data[128:], np.uint8).reshape(24, -1)
    store.write(key, data[:128] + pixels[::-1].tobytes())
    assert "(and 15 more)" in only_failure(store, study_id, "packs")


def test_a_label_swapped_in_the_predictions(store, study_id):
    culprit = []

    def swap(rows):
        rows[2]["label"] = 1 - rows[2]["label"]
        culprit.append(rows[2]["image_id"])

    rewrite(store, "predictions", swap, **run_keys(study_id))
    detail = only_failure(store, study_id, "predictions")
    assert "split 1 resnet18: 1 are not test images with that label" in detail
    assert culprit[0][:12] in detail


def test_labels_exchanged_in_the_images_table(store, study_id, manifest_id):
    def exchange(rows):
        rows[0]["label"] = 1 - rows[0]["label"]
        other = next(row for row in rows[1:] if row["label"] == rows[0]["label"])
        other["label"] = 1 - other["label"]

    rewrite(store, "images", exchange, manifest_id=manifest_id)
    assert "label is" in only_failure(store, study_id, "splits")


def test_an_image_dropped_from_the_images_table(store, study_id, manifest_id):
    rewrite(store, "images", lambda rows: rows.pop(), manifest_id=manifest_id)
    found = failures(store, study_id)
    assert "images is 24, expected 23" in found["manifest"]
    assert "lacking" in found["splits"] or "not expected" in found["splits"]


def test_a_manifest_without_its_summary(store, study_id, manifest_id):
    store.delete(manifest_key(manifest_id))
    assert manifest_id in only_failure(store, study_id, "manifest")


def test_an_image_moved_to_the_other_side_without_its_patient(store, study_id):
    moved = []

    def move(rows):
        row = next(row for row in rows if row["split"] == 1 and row["role"] == "train")
        row["role"] = "test"
        moved.append(row)

    rewrite(store, "splits", move, study_id=study_id)
    found = failures(store, study_id)
    assert list(found) == ["splits", "leakage"]
    name = f"split 1, image_id {moved[0]['image_id']}: role is test, expected train"
    assert found["splits"].startswith(name)
    assert found["splits"].endswith(
        f"(left out for this: predictions, metrics, comparisons, {ON_MAPS})"
    )
    assert moved[0]["patient_id"] in found["leakage"]


def test_a_patient_moved_to_the_other_side_is_no_leak_but_not_the_split_either(store, study_id):
    def move(rows):
        group = next(row["group_id"] for row in rows if row["split"] == 1 and row["role"] == "test")
        for row in rows:
            if row["split"] == 1 and row["group_id"] == group:
                row["role"] = "train"

    rewrite(store, "splits", move, study_id=study_id)
    assert "role is train, expected test" in only_failure(store, study_id, "splits")


def test_a_part_of_the_predictions_is_gone(store, study_id):
    store.delete(table_key("predictions", **run_keys(study_id)))
    detail = only_failure(store, study_id, "completeness")
    assert detail.startswith("3 of 4 runs are finished; split 1 resnet18: no predictions;")
    assert "start the same command again" in detail


def test_an_unfinished_study(store, study_id):
    keys = run_keys(study_id)
    for name in ("predictions", "epochs"):
        store.delete(table_key(name, **keys))
    store.delete(run_key(**keys))
    for name in ("metrics", "comparisons"):
        store.delete(table_key(name, study_id=study_id))
    detail = only_failure(store, study_id, "completeness")
    assert "split 1 resnet18: no predictions, 0 rows for epochs 1 to 2, no record" in detail
    assert "no table metrics; no table comparisons" in detail
    assert "start the same command again (left out for this: runs, metrics" in detail


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (b'{"status": "failed"}', "split 1 resnet18: its record says failed"),
        (b"{", "is damaged"),
        (b"[]", "is damaged"),
    ],
)
def test_a_record_that_does_not_say_finished(store, study_id, record, words):
    store.write(run_key(**run_keys(study_id)), record)
    assert words in only_failure(store, study_id, "completeness")


def test_epochs_out_of_order(store, study_id):
    rewrite(store, "epochs", lambda rows: rows.reverse(), **run_keys(study_id))
    assert "2 rows for epochs 1 to 2" in only_failure(store, study_id, "completeness")


def test_records_of_an_earlier_version_lack_what_came_later(store, study_id):
    plan = load_plan(store, study_id)
    for split, architecture in RUNS:
        key = run_key(study_id, split, architecture)
        record = json.loads(store.read(key))
        assert record.pop("weights_ignored", None) is None
        store.write(key, json.dumps(record).encode())
    assert runs_table(store, plan).equals(read_table(store, "runs", study_id=study_id))


def test_a_runs_table_that_differs_from_the_records(store, study_id):
    rewrite(store, "runs", lambda rows: rows[1].update(seconds=9.0), study_id=study_id)
    detail = only_failure(store, study_id, "runs")
    assert detail.startswith("split 0, architecture inception_v3: seconds is 9.0, expected 1.5")


@pytest.mark.parametrize("column", ["area", "glcm_energy", "grey_contrast"])
def test_a_feature_that_does_not_follow_from_its_map(store, study_id, column):
    image = []

    def alter(rows):
        first = min(row["image_id"] for row in rows)
        row = next(row for row in rows if row["image_id"] == first and row["threshold"] == 0.4)
        row[column] += 1e-6
        image.append(first)

    rewrite(store, "cam_features", alter, **run_keys(study_id))
    detail = only_failure(store, study_id, "cam_features")
    assert detail.startswith(f"split 1, architecture resnet18, image_id {image[0]}, threshold 0.4")
    assert f"{column} is" in detail
    assert detail.endswith("(left out for this: cam_tests, cam_families)")


def test_maps_of_other_images(store, study_id):
    """The maps of two images exchanged: the features tell."""

    def exchange(rows):
        rows[1]["map"], rows[3]["map"] = rows[3]["map"], rows[1]["map"]

    rewrite(store, "cams", exchange, **run_keys(study_id))
    assert "area is" in only_failure(store, study_id, "cam_features")


@pytest.mark.parametrize("table", ["cam_features", "cam_trust"])
def test_rows_on_maps_that_are_not_those_of_the_predictions(store, study_id, table):
    def damage(rows):
        rows.append(dict(rows[1]))
        rows[0]["label"] = 1 - rows[0]["label"]

    rewrite(store, table, damage, **run_keys(study_id))
    detail = only_failure(store, study_id, table)
    assert "1 rows are missing" in detail
    assert "1 rows are of images that this split does not test" in detail
    assert "1 rows are there twice" in detail


def test_a_nodule_that_changes_from_run_to_run(store, study_id):
    table = read_table(store, "cam_trust", study_id=study_id).to_pandas()
    twice = table.loc[table["image_id"].duplicated(), "image_id"].iloc[0]
    split, architecture = table.loc[table["image_id"] == twice, ["split", "architecture"]].iloc[0]

    def alter(rows):
        next(row for row in rows if row["image_id"] == twice)["nodule_aspect"] = 1.5

    keys = run_keys(study_id) | {"split": int(split), "architecture": architecture}
    rewrite(store, "cam_trust", alter, **keys)
    assert "1 images have several nodule_aspect" in only_failure(store, study_id, "cam_trust")


@pytest.mark.parametrize("table", ["cam_features", "cam_trust"])
def test_a_part_on_maps_that_is_gone(store, study_id, table):
    store.delete(table_key(table, **run_keys(study_id)))
    assert "rows are missing" in only_failure(store, study_id, table)


@pytest.mark.parametrize(
    ("table", "column"), [("cam_tests", "p_adjusted"), ("cam_families", "auc")]
)
def test_an_altered_figure_on_maps(store, study_id, table, column):
    def alter(rows):
        next(row for row in rows if row["threshold"] == 0.5)[column] = 0.25

    rewrite(store, table, alter, study_id=study_id)
    assert f"{column} is 0.25, expected" in only_failure(store, study_id, table)


@pytest.mark.parametrize("table", ["metrics", "comparisons", "calibration"])
def test_an_altered_figure(store, study_id, table):
    column = "p" if table == "comparisons" else "value"
    before = []

    def alter(rows):
        before.append(rows[0][column])
        rows[0][column] += 1e-6

    rewrite(store, table, alter, study_id=study_id)
    detail = only_failure(store, study_id, table)
    assert "metric auc" in detail
    assert f"expected {before[0]}" in detail


def test_a_figure_too_many(store, study_id):
    rewrite(store, "metrics", lambda rows: rows.append(rows[0]), study_id=study_id)
    assert only_failure(store, study_id, "metrics").startswith("1 rows twice")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"prob_malignant": 0.123}, "1 have a probability that is not their logits' softmax"),
        ({"prob_malignant": float("nan")}, "1 have a probability"),
        ({"logit_benign": float("inf")}, "1 have logits that are not finite"),
        ({"logit_malignant": float("nan")}, "1 have logits that are not finite"),
        ({"patient_id": None}, "1 are not test images"),
        ({"image_id": "0" * 64}, "1 test images lack theirs"),
    ],
)
def test_predictions_that_are_not_consistent(store, study_id, values, words):
    rewrite(store, "predictions", lambda rows: rows[1].update(values), **run_keys(study_id))
    assert words in only_failure(store, study_id, "predictions")


def test_a_prediction_twice(store, study_id):
    rewrite(store, "predictions", lambda rows: rows.append(rows[0]), **run_keys(study_id))
    assert "1 are there twice" in only_failure(store, study_id, "predictions")


def test_a_softmax_within_the_tolerance_passes(store, study_id):
    def nudge(rows):
        for row in rows:
            row["prob_malignant"] += 5e-7

    rewrite(store, "predictions", nudge, **run_keys(study_id))
    assert "predictions" not in failures(store, study_id)


def test_predictions_of_a_stranger(store, study_id):
    def rename(rows):
        for row in rows:
            row["architecture"] = "vgg16"

    rows = read_table(store, "predictions", **run_keys(study_id)).to_pylist()
    rename(rows)
    table = schemas.rows_to_table("predictions", rows)
    write_table(store, "predictions", table, **run_keys(study_id, architecture="vgg16"))
    assert "vgg16 is no architecture" in only_failure(store, study_id, "predictions")


def test_logits_too_large_for_exp_do_not_overflow(store, study_id):
    def large(rows):
        rows[0].update(logit_benign=-2000.0, logit_malignant=2000.0, prob_malignant=1.0)
        rows[1].update(logit_benign=2000.0, logit_malignant=-2000.0, prob_malignant=0.0)

    rewrite(store, "predictions", large, **run_keys(study_id))
    assert "predictions" not in failures(store, study_id)


@pytest.mark.parametrize(
    ("table", "left_out"),
    [
        (
            "images",
            (
                "manifest, images, packs, splits, leakage, predictions, metrics, "
                f"comparisons, {ON_MAPS}"
            ),
        ),
        (
            "splits",
            f"splits, leakage, predictions, metrics, comparisons, {ON_MAPS}",
        ),
        (
            "epochs",
            f"completeness, runs, metrics, comparisons, {ON_MAPS}",
        ),
        (
            "predictions",
            f"predictions, metrics, comparisons, {ON_MAPS}",
        ),
        ("runs", "runs, models"),
        ("metrics", "metrics, predictive_values"),
        ("comparisons", "comparisons"),
        ("ensemble", "ensemble"),
        ("calibration", "calibration"),
        *((name, name) for name in ("operating_points", "predictive_values", "subgroups")),
        *((name, name) for name in ("readers", "shortcuts")),
        ("cams", "cams, cam_features, cam_tests, cam_families"),
        ("cam_features", "cam_features, cam_tests, cam_families"),
        ("cam_trust", "cam_trust, cam_checks"),
        ("cam_checks", "cam_checks"),
        ("cam_tests", "cam_tests"),
        ("cam_families", "cam_families"),
    ],
)
@pytest.mark.parametrize("kept", [0, 0.5, -1])
def test_a_truncated_table(store, study_id, table, left_out, kept):
    key = store.keys(f"tables/{table}")[0]
    data = store.read(key)
    end = int(kept * len(data)) if isinstance(kept, float) else kept
    store.write(key, data[:end])
    detail = only_failure(store, study_id, f"table {table}")
    assert detail.startswith(f"{key}: ")
    assert detail.endswith(f"(left out for this: {left_out})")


@pytest.mark.parametrize("table", ["images", "splits"])
def test_a_table_that_is_gone(store, study_id, table):
    (key,) = store.keys(f"tables/{table}")
    store.delete(key)
    detail = only_failure(store, study_id, f"table {table}")
    assert f"{os.path.dirname(key)}: expected a part, found none" in detail  # noqa: PTH120


def test_a_table_with_another_schema(store, study_id):
    key = table_key("metrics", study_id=study_id)
    table = read_table(store, "metrics", study_id=study_id)
    with store.writing(key) as file:
        pq.write_table(table.set_column(3, "metrics", table["metric"]), file)
    detail = only_failure(store, study_id, "table metrics")
    assert "registered columns" in detail
    assert "metrics: string" in detail


def test_a_part_under_the_key_of_another(store, study_id):
    source = table_key("epochs", **run_keys(study_id, split=0))
    target = table_key("epochs", **run_keys(study_id, split=1))
    store.write(target, store.read(source))
    detail = only_failure(store, study_id, "table epochs")
    assert detail.startswith(f"{target}: expected split 1, found rows of 0")


def test_figures_are_compared_with_nan_and_null_kept_apart():
    def table(values):
        return pa.table({"key": list(range(len(values))), "value": pa.array(values, pa.float64())})

    nan = float("nan")
    same = table([1.0, nan, None, 0.0])
    assert (
        table_checks.differences("metrics", same, table([1.0 + 5e-10, nan, None, -5e-10]), ["key"])
        == []
    )
    assert (
        len(
            table_checks.differences("metrics", same, table([1.0 + 5e-9, None, nan, 5e-9]), ["key"])
        )
        == 4
    )
    assert table_checks.differences("metrics", same, same.take([3, 1, 0, 2]), ["key"]) == []
    assert table_checks.differences("metrics", same.slice(1), same, ["key"]) == ["key 0: lacking"]
    assert table_checks.differences("metrics", same, same.slice(1), ["key"]) == [
        "key 0: not expected"
    ]


def test_maps_that_are_not_those_of_the_predictions(store, study_id):
    rewrite(store, "cams", lambda rows: rows.pop(0), **run_keys(study_id))
    assert "1 maps are missing" in only_failure(store, study_id, "cams")


def test_maps_of_a_stranger_twice_and_cut_short(store, study_id):
    def damage(rows):
        rows.append(dict(rows[3]))
        rows[0]["image_id"] = "f" * 64
        rows[1]["map"] = rows[1]["map"][:-1]

    rewrite(store, "cams", damage, **run_keys(study_id))
    detail = only_failure(store, study_id, "cams")
    for words in (
        "1 maps are missing",
        "1 maps are of images that this split does not test",
        "1 maps are there twice",
    ):
        assert words in detail
    assert "1 maps have not height x width cells" in detail
