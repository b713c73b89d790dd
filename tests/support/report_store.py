"""A finished study, made up: all tables and packs of one, without any training."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from thyro_core.config import StudyConfig, job_seed
from thyro_core.datasets.attributes import image_nodules
from thyro_core.datasets.packs import write_pack
from thyro_core.datasets.splits import make_splits
from thyro_core.evaluation.tables import metrics_table
from thyro_core.explain.regions import SHARES
from thyro_core.explain.statistics import cam_tests
from thyro_core.explain.tables import cam_checks_table
from thyro_core.reporting.report import write_report
from thyro_core.store.keys import run_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.derived import derived_table, derived_tables
from thyro_core.study.plan import StudyPlan, make_plan, save_plan
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import CASCADE_COLUMNS, FEATURES, TRUST_COLUMNS
from thyro_core.tables.io import read_table, write_table
from thyro_core.training.pretrained import StartingWeights

MANIFEST = "m0123456789abcdef"
NO_MASKS = tuple(name for name, *_ in TRUST_COLUMNS if name.startswith("nodule_"))


def images(
    n: int = 60, malignant: int = 22, patients: bool = True, *, attributes: bool = False
) -> pa.Table:
    """Included images, and one excluded of each of two reasons.

    With attributes: two devices and a rare one, ages, and a reader who errs now and then.
    """
    rng = np.random.default_rng(7)
    rows = []
    for i in range(n + 2):
        row: dict[str, object] = dict.fromkeys(schemas.TABLES["images"].schema.names)
        included = i < n
        row |= {
            "manifest_id": MANIFEST,
            "image_id": f"{rng.integers(2**62):016x}" * 4,
            "uri": f"file:///set/{i}.png",
            "patient_id": f"p{i // 2}" if patients else None,
            "group_id": f"g{i // 2}" if patients else f"g{i}",
            "label": int(i % n < malignant),
            "width": 480 + i,
            "height": 360,
            "phash": f"{i:016x}",
            "pixel_hash": f"{i:064x}",
            "sharpness": 1.0 + i / 100,
            "overlay_share": 0.001 * i,
            "mean": 60.0 + i,
            "sd": 30.0,
            "attributes": json.dumps(_attributes(i, i % n < malignant)) if attributes else None,
            "included": included,
            "reason": None if included else ("blurred", "overlay")[i - n],
        }
        rows.append(row)
    return schemas.rows_to_table("images", rows)


def _attributes(i: int, is_malignant: bool) -> dict[str, str]:
    device = "Rare <$1> device" if i % 30 == 7 else "AB"[i // 2 % 2]
    category = 4 + (i % 4 > 0) if is_malignant else 2 + i % 3
    cells = {"device": device, "Age": str(20 + i % 50), "tirads": f"{category}a"}
    cells["cytology"] = "Malignant" if is_malignant else "benign"
    return cells if i % 9 else cells | {"Age": "unknown", "tirads": ""}


def planned(store: Store, table: pa.Table, config: StudyConfig, notes: Sequence[str]) -> StudyPlan:
    """Manifest, packs, plan and splits."""
    write_table(store, "images", table, manifest_id=MANIFEST)
    n = pc.sum(table["included"]).as_py()
    rng = np.random.default_rng(3)
    for side in {config.side(name) for name in config.architectures}:
        pack = rng.integers(0, 200, (n, side, side), np.uint8)
        write_pack(store, MANIFEST, side, pack, n)
    weights = {
        name: StartingWeights(name, "torchvision: IMAGENET1K_V1", "a" * 64, f"weights/{name}")
        for name in config.architectures
    }
    plan = make_plan(config, MANIFEST, "fp32", weights, tuple(notes))
    save_plan(store, plan)
    splits = make_splits(plan.study_id, table, config)
    write_table(store, "splits", splits, study_id=plan.study_id)
    return plan


def run(store: Store, plan: StudyPlan, split: int, architecture: str, skill: float) -> None:
    """What a job leaves of one architecture; `skill` moves malignant scores up."""
    keys = {"study_id": plan.study_id, "split": split, "architecture": architecture}
    rng = np.random.default_rng((split, len(architecture)))
    splits = read_table(store, "splits", study_id=plan.study_id)
    test = splits.filter((pc.field("split") == split) & (pc.field("role") == "test"))
    rows = test.sort_by("image_id").to_pylist()
    write_table(store, "predictions", _predictions(rows, keys, rng, skill), **keys)
    write_table(store, "cams", _cams(rows, keys, rng), **keys)
    write_table(store, "epochs", _epochs(keys, plan.config), **keys)
    write_table(store, "cam_features", _features(rows, keys, rng), **keys)
    write_table(store, "cam_trust", _trust(rows, keys, rng), **keys)
    record = dict.fromkeys(schemas.TABLES["runs"].schema.names) | keys
    record |= {
        "status": "finished",
        "seed": job_seed(plan.config.seed, split, architecture),
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "side": plan.config.side(architecture),
        "focal_alpha": 0.63,
        "n_train": splits.num_rows // plan.config.splits - test.num_rows,
        "n_test": test.num_rows,
        "weights_origin": plan.weights[architecture].origin,
        "weights_sha256": plan.weights[architecture].sha256,
        "versions": json.dumps({"python": "3.11.7", "torch": "2.13.0"}),
        "git_commit": "c" * 40,
        "host": "vm",
        "started": f"2026-01-02T03:{split:02d}:05+00:00",
        "seconds": 61.5,
        "gpu_seconds": 0.0,
        "peak_memory": 2**30,
        "resumed_epochs": 0,
    }
    record["train_auc"] = 1 - 0.001 * split
    store.write(run_key(**keys), json.dumps(record).encode())


def _predictions(rows, keys, rng, skill) -> pa.Table:
    found = []
    for row in rows:
        malignant = float(np.float32(rng.normal(skill * (2 * row["label"] - 1), 1.5)))
        share = 1 / (1 + np.exp(-malignant))
        kept = {name: row[name] for name in ("image_id", "patient_id", "label")}
        logits = {"logit_benign": 0.0, "logit_malignant": malignant}
        found.append(keys | kept | logits | {"prob_malignant": float(share)})
    return schemas.rows_to_table("predictions", found)


def _cams(rows, keys, rng) -> pa.Table:
    """Maps of 3 x 3; the first image's are empty."""
    found = []
    for i, row in enumerate(rows):
        for target in (0, 1):
            cells = rng.random(9) * (i > 0)
            peak = float(cells.max())
            cell = {"target_class": target, "layer": "layer4", "height": 3, "width": 3}
            shares = (cells / (peak or 1.0)).astype(np.float16)
            state = {"map": shares, "peak": peak, "is_empty": peak == 0}
            found.append(keys | {"image_id": row["image_id"]} | cell | state)
    return schemas.rows_to_table("cams", found)


def _epochs(keys, config) -> pa.Table:
    rows = [
        keys
        | {"epoch": epoch, "loss": 0.2 / epoch + 0.01 * keys["split"], "val_loss": None}
        | {"learning_rate": 1e-4, "seconds": 1.0, "images_per_second": 8.0}
        for epoch in range(1, config.epochs + 1)
    ]
    return schemas.rows_to_table("epochs", rows)


def _features(rows, keys, rng) -> pa.Table:
    found = []
    for row in rows:
        for share in SHARES:
            values = dict(zip(FEATURES, rng.normal(1, 0.2, len(FEATURES)), strict=True))
            values["circularity"] -= 0.4 * row["label"]
            kept = {"image_id": row["image_id"], "label": row["label"], "threshold": share}
            found.append(keys | kept | values)
    return schemas.rows_to_table("cam_features", found)


def _trust(rows, keys, rng) -> pa.Table:
    """The first image's map is empty, and only every second image is sampled for deletion."""
    names = [name for name, *_ in TRUST_COLUMNS]
    found = []
    for i, row in enumerate(rows):
        values: dict[str, object] = dict(zip(names, rng.random(len(names)), strict=True))
        # Of the image alone: the same in every split and for every network.
        values["nodule_aspect"] = 0.5 + int(row["image_id"][:6], 16) / 16**6
        # A second outline, which is taller, in half of the images.
        more = 0.6 * (int(row["image_id"][-1], 16) % 2)
        values["nodule_tallest"] = 0.5 + int(row["image_id"][:6], 16) / 16**6 + more
        if i == 0:
            of_image = ("_area", "_random", "_aspect", "_tallest")
            values |= {name: np.nan for name in names if not name.endswith(of_image)}
        if i % 2:
            values |= dict.fromkeys(
                (
                    *CASCADE_COLUMNS,
                    "deletion",
                    "deletion_random",
                    "insertion",
                    "insertion_random",
                )
            )
        values |= {"is_empty": i == 0, "border_area": 0.36}
        found.append(keys | {"image_id": row["image_id"], "label": row["label"]} | values)
    return schemas.rows_to_table("cam_trust", found)


def conclude(store: Store, plan: StudyPlan) -> None:
    """The tables that speak of the study as a whole."""
    from thyro_core.study.records import runs_table, train_aucs

    study = {"study_id": plan.study_id}
    write_table(store, "runs", runs_table(store, plan), **study)
    predictions, splits = (read_table(store, name, **study) for name in ("predictions", "splits"))
    images = read_table(store, "images", manifest_id=plan.manifest_id)
    nodules = image_nodules(images)
    extra = {"nodules": nodules, "train_aucs": train_aucs(store, plan)}
    metrics = metrics_table(plan.study_id, predictions, splits, plan.config, **extra)
    write_table(store, "metrics", metrics, **study)
    sources = {"predictions": predictions, "splits": splits, "images": images, "metrics": metrics}
    for name in derived_tables(plan.config):
        write_table(store, name, derived_table(name, plan, sources), **study)
    write_table(store, "cam_tests", _tests(store, plan, splits), **study)
    trust = read_table(store, "cam_trust", **study)
    checks = cam_checks_table(plan.study_id, trust, splits, plan.config)
    write_table(store, "cam_checks", checks, **study)
    write_table(store, "cam_families", _families(store, plan, splits), **study)


def _tests(store, plan, splits) -> pa.Table:
    rows = [
        row
        for name in plan.config.architectures
        for row in cam_tests(
            _of(store, plan, name), _of(store, plan, name, "predictions"), _patients(splits)
        )
    ]
    return schemas.rows_to_table("cam_tests", rows)


def _families(store, plan, splits) -> pa.Table:
    """Made up, but for the columns: the cross-validation is slow and not ours to test here."""
    rows = [
        {"study_id": plan.study_id, "architecture": name, "threshold": share, "family": family}
        | {"auc": 0.7 - 0.1 * place, "sd": 0.05, "n": 40}
        | {"difference": np.nan if place == 0 else 0.1 * place, "p": np.nan if place == 0 else 0.04}
        for name in plan.config.architectures
        for share in SHARES
        for place, family in enumerate(dict.fromkeys(FEATURES.values()))
    ]
    return schemas.rows_to_table("cam_families", rows)


def _of(store: Store, plan: StudyPlan, architecture: str, table: str = "cam_features") -> pa.Table:
    rows = read_table(store, table, study_id=plan.study_id)
    return rows.filter(pc.field("architecture") == architecture)


def _patients(splits: pa.Table) -> dict[str, str]:
    rows = splits.to_pylist()
    return {row["image_id"]: row["patient_id"] or row["group_id"] for row in rows}


def fabricated(
    folder: Path,
    table: pa.Table | None = None,
    notes: Sequence[str] = (),
    skill: float = 1.5,
    **config: object,
) -> tuple[Store, StudyPlan]:
    """A whole study; every argument has a default.

    Args:
        folder: where its store is made.
        table: its images.
        notes: of the plan.
        skill: how far malignant scores lie above benign ones.
        config: fields of the study's config.
    """
    values = {"splits": 3, "image_size": 64, "epochs": 4, "resamples": 100} | config
    study = StudyConfig.model_validate(values)
    store = open_store(str(folder / "store"))
    plan = planned(store, images() if table is None else table, study, notes)
    for split in range(study.splits):
        for place, architecture in enumerate(study.architectures):
            run(store, plan, split, architecture, skill - 0.3 * place)
    conclude(store, plan)
    return store, plan


@pytest.fixture(scope="session")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, StudyPlan]:
    """A study of all four architectures with every table filled, its report written; read only."""
    folder = tmp_path_factory.mktemp("full")
    # Six: below five no difference is tested, and the interval of a mean says next to nothing.
    store, plan = fabricated(folder, notes=["60 masks left out: no images"], splits=6)
    write_report(store, plan.study_id, folder)
    return store, plan
