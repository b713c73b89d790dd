"""A model on external images: what is left out, what is scored, and that nothing is fitted."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.finished_study import copy_of
from tests.support.html_page import read_page
from tests.support.imagesets import write_image_set
from tests.support.report_checks import answers, check_shown, numbers, untraced
from thyro_core.config import IngestConfig
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.card_bands import BandShares
from thyro_core.registry.ensemble import load_members
from thyro_core.registry.fingerprints import FINGERPRINT_FILE, training_fingerprints
from thyro_core.registry.predictor import Predictor
from thyro_core.reporting.evaluation import render_evaluation, write_evaluation_page
from thyro_core.store.keys import bundle_prefix, evaluation_folder, evaluation_page_key, table_key
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table
from thyro_core.validation import evaluate as module
from thyro_core.validation.config import EvaluationConfig, ModelChoice
from thyro_core.validation.evaluate import (
    EvaluationTask,
    evaluation_figures,
    load_evaluation,
    run_evaluation,
)
from thyro_core.validation.listing import evaluation_lines
from thyro_core.validation.maps import MAP_MEASURES, _ensemble_maps
from thyro_core.validation.model import find_model

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = EvaluationConfig(resamples=50)
RULES = IngestConfig(blur_bound=0)


@pytest.fixture(scope="module")
def bundled(
    finished: tuple[Store, StudyPlan], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, StudyPlan, Bundle]:
    store, plan = finished
    folder = tmp_path_factory.mktemp("bundled")
    copied = copy_of(store, folder / "store")
    choice = ModelChoice(model=plan.study_id[:8])
    return copied, plan, find_model(copied, choice, folder / "scratch")


def elsewhere(folder: Path, seed: int = 5) -> Path:
    """Other images of the same kind."""
    return write_image_set(folder, benign=14, malignant=13, seed=seed)


def overlapping(folder: Path, training: Path) -> Path:
    """As `elsewhere`, with a file of the training set, a turned one, and a patient of each."""
    elsewhere(folder)
    shutil.copy(training / "images" / "003.png", folder / "images" / "same.png")
    turned = np.rot90(np.asarray(Image.open(training / "images" / "005.png")))
    Image.fromarray(turned).save(folder / "images" / "turned.png")
    with (folder / "labels.csv").open("a", newline="") as file:
        csv.writer(file).writerows(
            [
                ["images/same.png", "benign", "patient-0"],
                ["images/turned.png", "benign", "patient-1"],
            ]
        )
    return folder


def task_of(store: Store, bundle: Bundle, source: Path, **more: object) -> EvaluationTask:
    manifest: Manifest = ingest(str(source), RULES, store, [bundle.side])
    return EvaluationTask(bundle, manifest, str(source), QUICK, **more)


@pytest.fixture(scope="module")
def done(bundled, tmp_path_factory: pytest.TempPathFactory):
    store, _, bundle = bundled
    folder = tmp_path_factory.mktemp("elsewhere")
    task = task_of(store, bundle, elsewhere(folder / "set"))
    return store, bundle, task, run_evaluation(store, task, folder / "scratch")


def rows_of(store: Store, evaluation_id: str) -> dict[str, dict[str, object]]:
    table = read_table(store, "evaluations", evaluation_id=evaluation_id)
    return {row["image_id"]: row for row in table.to_pylist()}


def test_every_image_is_scored_as_the_model_scores_it(done, tmp_path) -> None:
    store, bundle, task, record = done
    rows = rows_of(store, record.evaluation_id)
    assert record.counts == {"scored": 27}
    from thyro_core.registry.ensemble import load_members

    predictor = Predictor(bundle, tuple(load_members(bundle, store, tmp_path)))
    images = {row["image_id"]: row for row in task.manifest.table.to_pylist()}
    names = list(rows)[:5]
    files = [images[name]["uri"].removeprefix("file://") for name in names]
    expected = predictor.predict(files)
    for name, one in zip(names, expected.itertuples(), strict=True):
        row = rows[name]
        assert row["prob_calibrated"] == pytest.approx(one.prob_malignant, abs=1e-5)
        assert row["prob_raw"] == pytest.approx(np.mean(row["members"]))
        assert row["call"] == one.positive
        assert row["label"] == images[name]["label"]
        assert (row["excluded"], row["training_image"]) == (None, None)
    assert len(rows[names[0]]["members"]) == len(bundle.members)


def test_figures_stand_beside_the_cards_own(done) -> None:
    store, bundle, _, record = done
    figures = evaluation_figures(store, record.evaluation_id)
    auc, card = figures["none", "auc"], bundle.card
    inside = [auc[name] for name in ("internal", "internal_low", "internal_high")]
    assert inside == pytest.approx(
        [card["ensemble"]["auc"][name] for name in ("value", "low", "high")]
    )
    for name in ("slope", "intercept", "observed_expected", "brier"):
        own = card["calibration"]["calibrated"][name]["value"]
        expected = np.nan if own is None else own
        assert figures["none", name]["internal"] == pytest.approx(expected, nan_ok=True)
    assert auc["difference"] == pytest.approx(auc["value"] - auc["internal"])
    assert (auc["n"], auc["n_positive"], auc["n_units"]) == (27, 13, 27)
    assert {name for _, name in figures} >= {"psi_mean", "psi_sharpness", "fit_slope"}


def test_the_maps_are_checked_where_nodules_are_outlined(done) -> None:
    store, bundle, _, record = done
    table = read_table(store, "evaluation_maps", evaluation_id=record.evaluation_id)
    rows = {(row["measure"], row["baseline"]): row for row in table.to_pylist()}
    assert {measure for measure, _ in rows} == {*MAP_MEASURES, "is_empty"}
    assert {row["model_id"] for row in rows.values()} == {bundle.model_id}
    # This set has no masks: no figure of a nodule, but of the border.
    assert rows["nodule_energy", "permuted"]["n"] == 0
    border = rows["border_energy", "area"]
    assert 0 < border["n"] <= 27
    assert border["lead"] == pytest.approx(border["value"] - border["reference"])


def test_a_map_is_the_mean_of_the_members_own(done, tmp_path) -> None:
    store, bundle, task, _ = done
    index = pack_index(task.manifest.table)
    pixels = open_pack(store, task.manifest.manifest_id, bundle.side, tmp_path, len(index))
    maps = _ensemble_maps(store, bundle, pixels, [3, 0], scratch=tmp_path)
    predictor = Predictor(bundle, tuple(load_members(bundle, store, tmp_path)))
    np.testing.assert_allclose(
        maps, predictor.gradcam([pixels[3], pixels[0]])[:, 1], rtol=1e-4, atol=1e-7
    )


def test_again_is_done_and_a_stop_loses_nothing(done, tmp_path, monkeypatch) -> None:
    store, bundle, task, record = done
    monkeypatch.setattr(module, "internal_sample", lambda *_: pytest.fail("worked again"))
    assert (
        run_evaluation(store, task, tmp_path)
        == record
        == load_evaluation(store, record.evaluation_id)
    )
    assert store.keys(evaluation_folder(record.evaluation_id)) == [
        f"evaluations/{record.evaluation_id}/evaluation.json"
    ]
    (line,) = [line for line in evaluation_lines(store, bundle.model_id) if "27 images" in line]
    assert record.evaluation_id in line
    assert str(task.source) in line
    assert evaluation_lines(store, "b" + "0" * 16) == []


def test_what_was_scored_before_a_stop_is_not_scored_again(done, tmp_path, monkeypatch) -> None:
    from thyro_core.validation import score

    original, _, task, record = done
    store = copy_of(original, tmp_path / "store")
    for key in store.keys(evaluation_folder(record.evaluation_id)):
        store.delete(key)
    monkeypatch.setattr(score, "_BLOCK_IMAGES", 10)

    def stop(done_images: int, _total: int) -> None:
        if done_images > 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_evaluation(store, task, tmp_path / "scratch", stop)
    real, scored = score._scorer, []

    def counting(*arguments: object):
        inner = real(*arguments)
        return lambda some: scored.extend(some) or inner(some)

    monkeypatch.setattr(score, "_scorer", counting)
    assert run_evaluation(store, task, tmp_path / "scratch") == record
    assert len(scored) == 7
    for row, other in zip(
        rows_of(store, record.evaluation_id).values(),
        rows_of(original, record.evaluation_id).values(),
        strict=True,
    ):
        assert row["prob_calibrated"] == pytest.approx(other["prob_calibrated"], abs=1e-5)


def test_nothing_is_fitted_on_the_images(done, tmp_path) -> None:
    """Other labels change no probability and no call, only what is marked as adapted."""
    original, bundle, _, record = done
    store = copy_of(original, tmp_path / "store")
    source = elsewhere(tmp_path / "set")
    lines = (source / "labels.csv").read_text().splitlines()
    swapped = [
        line.replace("benign", "x").replace("malignant", "benign").replace("x", "malignant")
        for line in lines
    ]
    (source / "labels.csv").write_text("\n".join(swapped) + "\n")
    other = run_evaluation(store, task_of(store, bundle, source), tmp_path / "scratch")
    assert other.evaluation_id != record.evaluation_id
    rows, before = rows_of(store, other.evaluation_id), rows_of(store, record.evaluation_id)
    assert rows.keys() == before.keys()
    for name, row in rows.items():
        assert row["label"] == 1 - before[name]["label"]
        for column in ("members", "prob_raw", "prob_calibrated", "call"):
            assert row[column] == before[name][column]
    assert [row["prob_recalibrated"] for row in rows.values()] != [
        row["prob_recalibrated"] for row in before.values()
    ]


def test_what_the_model_was_made_of_is_left_out_by_name(bundled, finished, tmp_path) -> None:
    store, plan, bundle = bundled
    training = {row["uri"].rsplit("/", 1)[-1]: row["image_id"] for row in read_table(
        store, "images", manifest_id=plan.manifest_id).to_pylist()}  # fmt: skip
    uri = read_table(store, "images", manifest_id=plan.manifest_id)["uri"][0].as_py()
    folder = Path(uri.removeprefix("file://")).parents[1]
    task = task_of(store, bundle, overlapping(tmp_path / "set", folder))
    record = run_evaluation(store, task, tmp_path / "scratch")
    names = {
        row["image_id"]: row["uri"].rsplit("/", 1)[-1] for row in task.manifest.table.to_pylist()
    }
    rows = {names[image]: row for image, row in rows_of(store, record.evaluation_id).items()}
    left_out = {
        name: (row["excluded"], row["training_image"])
        for name, row in rows.items()
        if row["excluded"]
    }
    assert left_out == {
        "same.png": ("same_file", training["003.png"]),
        "turned.png": ("same_picture", training["005.png"]),
        "000.png": ("same_patient", None),
        "001.png": ("same_patient", None),
    }
    assert rows["same.png"]["prob_calibrated"] is None
    assert rows["002.png"]["prob_calibrated"] is not None
    assert record.counts == {"scored": 25, "same_file": 1, "same_picture": 1, "same_patient": 2}
    whole = ingest(str(folder), RULES, store, [bundle.side])
    with pytest.raises(InputError, match=r"was not trained on, found none \(28 same_file\)"):
        run_evaluation(store, EvaluationTask(bundle, whole, None, QUICK), tmp_path / "scratch")


def test_a_bundle_without_fingerprints_falls_back_and_says_what_it_cannot(
    bundled, tmp_path
) -> None:
    original, plan, bundle = bundled
    store = copy_of(original, tmp_path / "store")
    files = {k: v for k, v in bundle.card["files"].items() if k != FINGERPRINT_FILE}
    old = Bundle(**(vars(bundle) | {"card": {**bundle.card, "files": files}}))
    made = training_fingerprints(store, old, tmp_path)
    assert made == training_fingerprints(store, bundle, tmp_path)
    store.delete(table_key("images", manifest_id=plan.manifest_id))
    assert training_fingerprints(store, old, tmp_path) is None
    task = task_of(store, old, elsewhere(tmp_path / "set", seed=9))
    record = run_evaluation(store, task, tmp_path / "scratch")
    assert any("could not be looked for" in note for note in record.notes)
    key = f"{bundle_prefix(bundle.model_id)}/{FINGERPRINT_FILE}"
    store.write(key, store.read(key)[:-1] + b"x")
    with pytest.raises(InputError, match="expected SHA-256"):
        training_fingerprints(store, bundle, tmp_path)


def test_models_are_found_by_their_names(bundled, tmp_path) -> None:
    store, plan, bundle = bundled
    assert find_model(store, ModelChoice(model=bundle.model_id), tmp_path) == bundle
    assert find_model(store, ModelChoice(model=plan.study_id), tmp_path) == bundle
    for name, words in (
        ("champion", "promote"), ("b" + "0" * 16, "expected a promoted model"),
        ("s" + "0" * 16, "expected a study"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            find_model(store, ModelChoice(model=name), tmp_path)


def test_a_model_whose_study_is_gone_is_refused(done, tmp_path) -> None:
    original, bundle, task, record = done
    store = copy_of(original, tmp_path / "store")
    store.delete(f"evaluations/{record.evaluation_id}/evaluation.json")
    for key in store.keys(f"tables/predictions/study_id={bundle.card['study_id']}"):
        store.delete(key)
    with pytest.raises(InputError, match="expected its predictions"):
        run_evaluation(store, task, tmp_path / "scratch")


def test_a_damaged_record_is_named(done, tmp_path) -> None:
    original, _, _, record = done
    store = copy_of(original, tmp_path / "store")
    store.write(f"evaluations/{record.evaluation_id}/evaluation.json", b"{}")
    with pytest.raises(InputError, match="delete this file"):
        load_evaluation(store, record.evaluation_id)
    assert any("damaged" in line for line in evaluation_lines(store, record.model_id))
    with pytest.raises(InputError, match=f"found .*{record.evaluation_id}"):
        load_evaluation(store, "e" + "0" * 16)


def test_each_number_of_the_page_is_its_tables(done) -> None:
    store, _, task, record = done
    html = render_evaluation(store, record.evaluation_id)
    assert html == render_evaluation(store, record.evaluation_id)
    # A page travels: it names the set, and no folder of the machine.
    assert "from <code>set</code>" in html
    assert str(Path(str(task.source)).parent) not in html
    page = read_page(html)
    origins = {e.attributes["data-sql"] for e in numbers(page) if "data-sql" in e.attributes}
    values = answers(store, sorted(origins))
    for element in numbers(page):
        if "data-sql" in element.attributes:
            check_shown(element, values[element.attributes["data-sql"]])
        else:
            assert element.attributes["data-source"] == "definition"
    assert len(origins) > 150
    allowed = {"code", "title", "style", "h1"}
    assert [text for text in untraced(page) if text[1:].partition(">")[0] not in allowed] == []
    assert {"plot-roc-title", "plot-calibration-title", "plot-benefit-title"} <= {
        element.attributes.get("id") for element in page.find("title")
    }
    assert "not a medical device" in html
    assert "<script" not in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_the_page_stays_and_a_set_of_one_class_has_one_too(bundled, tmp_path) -> None:
    store, _, bundle = bundled
    source = write_image_set(tmp_path / "set", benign=12, malignant=0, seed=11)
    record = run_evaluation(store, task_of(store, bundle, source), tmp_path / "scratch")
    url = write_evaluation_page(store, record.evaluation_id)
    assert url == write_evaluation_page(store, record.evaluation_id)
    html = store.read(evaluation_page_key(record.evaluation_id)).decode()
    assert "one sample has images of one class only" in html
    assert "No finding" in html
    figures = evaluation_figures(store, record.evaluation_id)
    assert np.isnan(figures["none", "auc"]["value"])
    assert not {name for adaptation, name in figures if adaptation != "none"}


def test_a_promise_is_followed_to_the_page(bundled, tmp_path) -> None:
    store, plan, _ = bundled
    spec = BundleSpec(plan, "resnet18", 0.95, BandShares(0.25, 0.25))
    bundle = make_bundle(store, spec, tmp_path / "scratch")
    record = run_evaluation(
        store, task_of(store, bundle, elsewhere(tmp_path / "set")), tmp_path / "scratch"
    )
    figures = evaluation_figures(store, record.evaluation_id)
    row = figures["none", "routine_patients"]
    rows = rows_of(store, record.evaluation_id).values()
    called = [
        each["prob_calibrated"] < bundle.cuts.routine_below
        and each["prob_calibrated"] <= bundle.cuts.refer_above
        for each in rows if each["label"] == 1
    ]  # fmt: skip
    assert (row["n"], row["value"]) == (13, pytest.approx(np.mean(called)))
    page = read_page(render_evaluation(store, record.evaluation_id))
    text = render_evaluation(store, record.evaluation_id)
    assert "What became of the bands&rsquo; promise" in text
    assert "of patients with malignant images at most 25 % have a malignant image called" in text
    origins = {e.attributes["data-sql"] for e in numbers(page) if "data-sql" in e.attributes}
    assert sum("routine_" in sql or "refer_" in sql for sql in origins) >= 16
    (line,) = [x for x in evaluation_lines(store, bundle.model_id) if record.evaluation_id in x]
    assert "promise of routine" in line
