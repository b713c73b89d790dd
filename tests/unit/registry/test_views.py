"""A model is shown what it learned to see, by whatever way an image comes to it."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.finished_study import finished_study
from tests.support.screened import RULES as SCREENING
from tests.support.screened import DecoderHere, Ward, tissue
from thyro_core import load_model
from thyro_core.config import IngestConfig, ViewConfig
from thyro_core.datasets.manifest import ingest
from thyro_core.errors import InputError
from thyro_core.imaging.view import square_view, view_box
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.card_pages import card_markdown
from thyro_core.registry.champion import set_champion
from thyro_core.registry.export.facts import from_picture, model_facts
from thyro_core.registry.export.run import square
from thyro_core.reporting.map_lookup import MapRequest, explained_image
from thyro_core.reporting.report import render_report
from thyro_core.screening.night import Means, plan_night
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.study.verify.verify import verify_study
from thyro_core.tables.io import read_table
from thyro_core.training.recipe import network_recipe
from thyro_core.validation.config import EvaluationConfig
from thyro_core.validation.evaluate import EvaluationTask, run_evaluation
from thyro_core.validation.model import with_view

pytestmark = pytest.mark.usefixtures("one_thread")

BOX = (24, 20, 48, 40)
"""The centre of the tests' images: left, top, width, height."""


def write_set(folder: Path, seed: int, n: int = 28) -> Path:
    (folder / "images").mkdir(parents=True)
    rows = []
    for i in range(n):
        is_malignant = i % 7 > 3
        name = f"images/{i:03d}.png"
        Image.fromarray(tissue(seed + i, malignant=is_malignant)).save(folder / name)
        rows.append([name, "malignant" if is_malignant else "benign", f"patient-{i}", *BOX])
    with (folder / "labels.csv").open("w", newline="") as file:
        header = ["image", "label", "patient_id", "x", "y", "w", "h"]
        csv.writer(file).writerows([header, *rows])
    return folder


def study_of(folder: Path, **view: object) -> tuple[Store, StudyPlan, Bundle]:
    write_set(folder / "set", 1000)
    store, plan = finished_study(folder, splits=2, epochs=1, **view)
    bundle = make_bundle(store, BundleSpec(plan, "resnet18", 0.5), folder / "scratch")
    set_champion(store, bundle.model_id, "promoted", "for the tests", lambda _: "not asked")
    return store, plan, bundle


Made = tuple[Store, StudyPlan, Bundle]


@pytest.fixture(scope="module")
def padded(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return study_of(tmp_path_factory.mktemp("padded"), resize="pad", clean=True)


@pytest.fixture(scope="module")
def nodules(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return study_of(tmp_path_factory.mktemp("nodules"), region="nodule", region_margin=0.25)


def margins_of(bundle: Bundle, store: Store, tmp_path: Path, squares: np.ndarray) -> np.ndarray:
    """Calibrated probabilities, by the members and the square alone."""
    import torch

    from thyro_core.registry.ensemble import load_members, score_batch
    from thyro_core.training.batches import normalise

    batch = normalise(torch.from_numpy(squares).unsqueeze(1).float() / 255)
    members = load_members(bundle, store, tmp_path / "scratch")
    return score_batch(members, batch, bundle.calibration).probability


def evaluated(store: Store, bundle: Bundle, tmp_path: Path) -> dict[str, float]:
    rules = with_view(IngestConfig(blur_bound=0), bundle)
    manifest = ingest(str(write_set(tmp_path / "other", 5000, 14)), rules, store, [bundle.side])
    task = EvaluationTask(bundle, manifest, None, EvaluationConfig(resamples=20, map_images=4))
    record = run_evaluation(store, task, tmp_path / "scratch")
    table = read_table(store, "evaluations", evaluation_id=record.evaluation_id)
    return {row["image_id"]: row["prob_calibrated"] for row in table.to_pylist()}


def test_a_padded_clean_study_holds_in_verify_and_its_page_says_so(padded: Made, tmp_path) -> None:
    store, plan, bundle = padded
    assert all(check.is_passed for check in verify_study(store, plan.study_id))
    page, _ = render_report(store, plan.study_id, tmp_path / "scratch")
    assert plan.config.words in page
    assert "sees true proportions" in page
    assert "become the same" not in page
    assert "data-view-facts" in page
    shortcuts = read_table(store, "shortcuts", study_id=plan.study_id).to_pylist()
    assert 0 <= shortcuts[0]["file_auc"] <= 1
    assert bundle.view == ViewConfig(resize="pad", clean=True)
    assert bundle.view.words in card_markdown(bundle.card, "")


def test_predict_screen_and_evaluate_feed_the_padded_view(
    padded: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from thyro_core.screening import file_images, score

    store, _, bundle = padded
    grey = tissue(1003)
    expected_square = square_view(grey, bundle.side, bundle.view, view_box(grey, bundle.view))
    expected = margins_of(bundle, store, tmp_path, expected_square[None])[0]
    assert load_model(store).predict([grey])["prob_malignant"][0] == pytest.approx(expected)

    monkeypatch.setattr(file_images, "DecoderProcess", DecoderHere)
    shown: list[np.ndarray] = []
    original: Callable[..., np.ndarray] = score.overlay_map
    monkeypatch.setattr(
        score, "overlay_map", lambda grey, cam: shown.append(cam) or original(grey, cam)
    )
    (tmp_path / "batch").mkdir()
    Image.fromarray(grey).save(tmp_path / "batch" / "a.png")
    ward = Ward(store, tmp_path / "batch", Means(scratch=tmp_path / "scratch"))
    ward.screen()
    (row,) = read_table(store, "screening").to_pylist()
    assert row["prob_malignant"] == pytest.approx(expected, abs=1e-6)
    assert row["view_box"] == (view_box(grey, bundle.view) and list(view_box(grey, bundle.view)))
    from thyro_core.screening.model import ScreeningModel
    from thyro_core.screening.single_files import judge_files

    judge = ScreeningModel(store, bundle.model_id, tmp_path / "scratch")
    (verdict,) = judge_files(judge, [tmp_path / "batch" / "a.png"], SCREENING)
    assert verdict.prob_malignant == pytest.approx(expected, abs=1e-6)
    assert verdict.overlay is not None
    assert shown[-1].shape == grey.shape

    found = evaluated(store, bundle, tmp_path)
    squares, ids = [], []
    manifest = ingest(
        str(tmp_path / "other"), with_view(IngestConfig(blur_bound=0), bundle), store, [64]
    )
    for row in manifest.table.to_pylist():
        whole = np.asarray(Image.open(row["uri"].removeprefix("file://")))
        box = view_box(whole, bundle.view)
        squares.append(square_view(whole, bundle.side, bundle.view, box))
        ids.append(row["image_id"])
    scores = margins_of(bundle, store, tmp_path, np.stack(squares))
    assert [found[name] for name in ids] == pytest.approx(list(scores), abs=1e-5)


def test_maps_are_drawn_over_what_the_network_saw(padded: Made, tmp_path: Path) -> None:
    store, plan, _ = padded
    splits = read_table(store, "splits", study_id=plan.study_id).to_pylist()
    image = next(row["image_id"] for row in splits if row["role"] == "test")
    explained = explained_image(store, MapRequest(plan.study_id, image, 1), tmp_path)
    assert explained.cam.shape == (explained.height, explained.width)
    ratio = explained.grey.shape[0] / explained.grey.shape[1]
    assert ratio == pytest.approx(explained.height / explained.width, rel=0.03)
    assert explained.grey.min() >= 0
    assert explained.grey[0].any()  # no black beside it


def test_a_study_of_nodules_is_evaluated_by_boxes_and_never_screened(
    nodules: Made, tmp_path: Path
) -> None:
    store, plan, bundle = nodules
    assert all(check.is_passed for check in verify_study(store, plan.study_id))
    x, y, w, h = BOX
    grey = tissue(78)
    box = view_box(grey, bundle.view, (x, y, x + w, y + h))
    assert box == (12, 8, 84, 72)
    expected = margins_of(
        bundle, store, tmp_path, square_view(grey, bundle.side, bundle.view, box)[None]
    )[0]
    model = load_model(store)
    assert model.predict([grey], [BOX])["prob_malignant"][0] == pytest.approx(expected)
    with pytest.raises(InputError, match="sees nodules alone, and boxes; found none"):
        model.predict([grey])
    with pytest.raises(InputError, match="expected a box for each image, found 1"):
        model.predict([grey, grey], [BOX])
    with pytest.raises(InputError, match=r"box 0: .*within 96 x 80"):
        model.predict([grey], [(90, 70, 20, 20)])
    (tmp_path / "batch").mkdir()
    with pytest.raises(InputError, match="new files have neither masks nor boxes"):
        plan_night(store, str(tmp_path / "batch"), "2026-11-25", None, SCREENING)
    assert any("refuse" in warning for warning in bundle.card["warnings"])
    found = evaluated(store, bundle, tmp_path)
    for row in read_table(store, "images").to_pylist():
        if row["image_id"] in found:
            assert row["view_box"] == [12, 8, 84, 72]


def test_another_view_is_refused_in_words(padded: Made, nodules: Made, tmp_path: Path) -> None:
    store, _, bundle = padded
    with pytest.raises(InputError, match=r"region: expected whole, which model .* found nodule"):
        with_view(IngestConfig(region="nodule"), bundle)
    source = write_set(tmp_path / "other", 6000, 14)
    manifest = ingest(str(source), IngestConfig(blur_bound=0), store, [bundle.side])
    task = EvaluationTask(bundle, manifest, None, EvaluationConfig())
    with pytest.raises(InputError, match="as it learned to see them"):
        run_evaluation(store, task, tmp_path / "scratch")


@pytest.mark.parametrize(
    "view",
    [
        ViewConfig(),
        ViewConfig(resize="pad"),
        ViewConfig(region="nodule", region_margin=0.2),
        ViewConfig(region="nodule", resize="pad", region_margin=0.0),
    ],
)
def test_the_exported_script_makes_the_same_square(view: ViewConfig, tmp_path: Path) -> None:
    grey = tissue(3)
    file = tmp_path / "a.png"
    Image.fromarray(grey).save(file)
    x, y, w, h = BOX
    nodule = (x, y, x + w, y + h) if view.region == "nodule" else None
    expected = square_view(grey, 64, view, view_box(grey, view, nodule))
    keys = {name: getattr(view, name) for name in ViewConfig.model_fields}
    argument = f"{file}@{x},{y},{w},{h}" if nodule else str(file)
    np.testing.assert_array_equal(np.asarray(square(argument, 64, keys)), expected)
    assert view.words in from_picture(view)


def test_the_exported_script_refuses_what_it_cannot_show(padded: Made, nodules: Made) -> None:
    for (_, _, bundle), words in ((padded, "cleaned pictures"), (nodules, "LEFT,TOP,WIDTH,HEIGHT")):
        facts = model_facts(bundle, network_recipe(bundle.architecture, bundle.side))
        view = json.loads(json.dumps(facts["input"]["view"]))
        with pytest.raises(SystemExit, match=words):
            square("a.png", 64, view)
