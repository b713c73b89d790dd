"""From a trained study to a model in use: what is in the bundle, and what stops it."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch

from tests.support.finished_study import copy_of, finished_study
from tests.support.places import REPOSITORY
from thyro_core.datasets.packs import open_pack, pack_index
from thyro_core.errors import InputError, ThyroError
from thyro_core.evaluation.calibration import LogisticCalibration
from thyro_core.evaluation.member_count import member_variance
from thyro_core.evaluation.out_of_fold import out_of_fold_ensemble, out_of_fold_predictions
from thyro_core.registry import build as bundle_making
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle, load_bundle, reference
from thyro_core.registry.champion import champion, read_champion, rollback
from thyro_core.registry.distance import distance_bound, embedding_distance
from thyro_core.registry.ensemble import embedding, load_members, score_batch
from thyro_core.registry.promote import GateError, PromotionConfig, promote
from thyro_core.store.keys import bundle_prefix, card_key, model_key, run_key
from thyro_core.store.store import Store, open_store
from thyro_core.study.plan import StudyPlan
from thyro_core.tables.io import read_table, write_table
from thyro_core.training.batches import Examples
from thyro_core.training.inference import image_batches, predict
from thyro_core.training.models import LAST_CONV, build
from thyro_core.training.pretrained import StartingWeights

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def promoted(
    finished: tuple[Store, StudyPlan], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Store, StudyPlan, Bundle]:
    """A copy of the finished study, promoted."""
    store, plan = finished
    folder = tmp_path_factory.mktemp("promoted")
    copied = copy_of(store, folder / "store")
    done = promote(copied, PromotionConfig(study_id=plan.study_id), folder / "scratch")
    assert done.change
    return copied, plan, done.bundle


def examples(store: Store, plan: StudyPlan, ids: list[str]) -> Examples:
    index = pack_index(read_table(store, "images", manifest_id=plan.manifest_id))
    pixels = open_pack(store, plan.manifest_id, 64, Path("/nonexistent"), len(index))
    places = np.array([index[image_id] for image_id in ids])
    return Examples(pixels, places, torch.zeros(len(ids), dtype=torch.int64))


def batch(store: Store, plan: StudyPlan, ids: list[str]) -> torch.Tensor:
    return next(image_batches(examples(store, plan, ids), torch.device("cpu")))


def test_the_bundle_is_all_that_the_card_says(promoted) -> None:
    store, plan, bundle = promoted
    assert champion(store) == bundle.model_id
    prefix = bundle_prefix(bundle.model_id)
    files = {key.rpartition("/")[2]: store.read(key) for key in store.keys(prefix)}
    card = json.loads(files.pop("card.json"))
    assert {name: hashlib.sha256(data).hexdigest() for name, data in files.items()} == card["files"]
    for split, key in enumerate(bundle.members):
        assert store.read(key) == store.read(model_key(plan.study_id, split, "resnet18"))
    assert bundle.card == {name: value for name, value in card.items() if name != "seal"}
    assert (bundle.architecture, bundle.side, len(bundle.members)) == ("resnet18", 64, 3)
    assert bundle.calibration.slope == card["calibration"]["slope"]
    assert bundle.calibration.intercept == card["calibration"]["intercept"]
    assert bundle.threshold == card["operating_point"]["threshold"]
    assert card["data"]["manifest_id"] == plan.manifest_id
    assert (card["data"]["images"], card["data"]["malignant"], card["data"]["patients"]) == (
        28,
        12,
        28,
    )
    assert card["notice"].startswith("Research use only")
    assert not any("RANDOM weights" in warning for warning in card["warnings"])
    metrics = read_table(store, "metrics", study_id=plan.study_id).to_pylist()
    (auc,) = [row for row in metrics if row["metric"] == "auc" and row["split"] is None]
    assert card["metrics"]["auc"] == {
        "value": auc["value"], "low": auc["ci_low"], "high": auc["ci_high"], "n": 3
    }  # fmt: skip
    # A CUDA wheel's package leaves out what torch says behind the plus.
    assert card["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]


def test_the_members_say_what_the_study_recorded(promoted, tmp_path) -> None:
    store, plan, bundle = promoted
    members = load_members(bundle, store, tmp_path)
    assert [member.training for member in members] == [False] * 3
    assert not any(p.requires_grad for member in members for p in member.parameters())
    assert members[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    for split, member in enumerate(members):
        rows = read_table(store, "predictions", study_id=plan.study_id, split=split)
        found = predict(
            member, examples(store, plan, rows["image_id"].to_pylist()), torch.device("cpu")
        )
        recorded = np.stack([rows["logit_benign"], rows["logit_malignant"]], axis=1)
        assert np.allclose(found.numpy(), recorded, rtol=1e-5, atol=1e-6)


def test_an_ensemble_by_hand(promoted, tmp_path) -> None:
    store, plan, bundle = promoted
    members = load_members(bundle, store, tmp_path)
    images = batch(store, plan, sorted(pack_index(read_table(store, "images"))))[:5]
    calibration = LogisticCalibration(0.5, -1.0)
    found = score_batch(members, images, calibration)
    with torch.inference_mode():
        each = torch.stack([torch.softmax(m(images).double(), 1)[:, 1] for m in members], 1)
    raw = each.mean(1)
    assert found.raw == pytest.approx(raw.numpy(), rel=1e-12)
    calibrated = torch.sigmoid(-1.0 + 0.5 * torch.logit(raw))
    assert found.probability == pytest.approx(calibrated.numpy(), rel=1e-12)
    alike = torch.sigmoid(-1.0 + 0.5 * torch.logit(each))
    assert found.members == pytest.approx(alike.numpy(), rel=1e-12)
    assert found.sd == pytest.approx(alike.std(1).numpy(), rel=1e-9)
    assert {array.dtype for array in (found.probability, found.raw, found.sd)} == {
        np.dtype(np.float64)
    }
    alone = score_batch(members[:1], images, calibration)
    assert np.isnan(alone.sd).all()
    assert alone.probability.tolist() == pytest.approx(found.members[:, 0].tolist(), rel=1e-12)


@pytest.mark.parametrize(
    ("architecture", "side", "k"), [("resnet18", 64, 512), ("alexnet", 64, 256)]
)
def test_an_embedding_is_the_mean_of_the_map_that_grad_cam_looks_at(architecture, side, k) -> None:
    model = build(architecture, side, 0).eval()
    images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(0))
    seen = []
    hook = model.get_submodule(LAST_CONV[architecture]).register_forward_hook(
        lambda *given: seen.append(given[2])
    )
    with torch.inference_mode():
        model(images)
    hook.remove()
    found = embedding(model, architecture, images)
    assert found.shape == (3, k)
    assert found.dtype == np.float32
    assert np.allclose(found, seen[0].mean(dim=(2, 3)).numpy(), atol=1e-6)


def test_an_inception_embedding_leaves_the_auxiliary_head_out() -> None:
    model = build("inception_v3", 85, 0).eval()
    model.AuxLogits = torch.nn.Identity()
    images = torch.randn(1, 3, 85, 85, generator=torch.Generator().manual_seed(0))
    assert embedding(model, "inception_v3", images).shape == (1, 2048)


def test_the_reference_is_the_training_set_as_the_model_saw_it(promoted, tmp_path) -> None:
    store, plan, bundle = promoted
    table = reference(store, bundle.model_id)
    splits = read_table(store, "splits", study_id=plan.study_id)
    assert table["image_id"].to_pylist() == sorted(set(splits["image_id"].to_pylist()))
    predictions = read_table(store, "predictions", study_id=plan.study_id).to_pylist()
    images = {row["image_id"]: row for row in read_table(store, "images").to_pylist()}
    trained = splits.filter(
        pc.and_(pc.equal(splits["split"], 0), pc.equal(splits["role"], "train"))
    )
    rows = out_of_fold_predictions(
        read_table(store, "predictions", study_id=plan.study_id), splits, bundle.architecture
    )
    together = out_of_fold_ensemble(rows)
    spread = member_variance(together).rescale(together.margin, together.members)
    in_use = dict(zip(together.image, spread, strict=True))
    for row in table.to_pylist():
        margins = [p["logit_malignant"] - p["logit_benign"] for p in predictions
                   if p["image_id"] == row["image_id"]]  # fmt: skip
        each = [bundle.calibration.probability(np.array(m)) for m in margins]
        assert row["prob_malignant"] == pytest.approx(
            bundle.calibration.probability(np.array(in_use.get(row["image_id"], np.nan))),
            rel=1e-5, nan_ok=True,
        )  # fmt: skip
        assert (row["image_id"] in in_use) == bool(margins)
        sd = np.std(each, ddof=1) if len(each) > 1 else np.nan
        assert row["sd"] == pytest.approx(sd, rel=1e-4, abs=1e-12, nan_ok=True)
        image = images[row["image_id"]]
        assert (row["mean"], row["grey_sd"]) == (image["mean"], image["sd"])
        assert (row["sharpness"], row["overlay_share"]) == (
            image["sharpness"],
            image["overlay_share"],
        )
        assert row["label"] == image["label"]
        assert row["held_out"] == (row["image_id"] not in trained["image_id"].to_pylist())
    (member, *_) = load_members(bundle, store, tmp_path)
    found = embedding(member, "resnet18", batch(store, plan, table["image_id"].to_pylist()))
    stored = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    assert np.allclose(found, stored, rtol=1e-5, atol=1e-6)
    card = bundle.card["embedding"]
    assert card["held_out"] == 7
    assert card["distances"]["0.9"] == distance_bound(table, 0.9)
    assert embedding_distance(table, stored).max() <= distance_bound(table, 1.0) * 10


def test_the_same_again_changes_not_a_byte(promoted, tmp_path) -> None:
    store, plan, bundle = promoted
    before = {key: store.read(key) for key in store.keys("registry")}
    again = promote(store, PromotionConfig(study_id=plan.study_id), tmp_path)
    assert again.change is None
    assert again.bundle == bundle
    assert {key: store.read(key) for key in store.keys("registry")} == before


def test_the_same_study_elsewhere_gives_the_same_bytes(promoted, finished, tmp_path) -> None:
    store, plan, bundle = promoted
    other = copy_of(finished[0], tmp_path / "store")
    torch.set_num_threads(2)
    try:
        made = make_bundle(other, BundleSpec(plan, "resnet18", 0.95), tmp_path / "scratch")
    finally:
        torch.set_num_threads(1)
    assert made == bundle
    prefix = bundle_prefix(bundle.model_id)
    assert other.keys(prefix) == store.keys(prefix)
    for key in store.keys(prefix):
        assert other.read(key) == store.read(key), key


def test_another_sensitivity_is_another_model(promoted, finished, tmp_path) -> None:
    store, plan, bundle = promoted
    copied = copy_of(store, tmp_path / "store")
    done = promote(copied, PromotionConfig(study_id=plan.study_id, sensitivity=0.5), tmp_path)
    assert done.bundle.model_id != bundle.model_id
    assert done.bundle.threshold >= bundle.threshold
    assert done.change
    assert done.change.gate.startswith(f"AUC +0.0000 against {bundle.model_id}")
    assert rollback(copied).model_id == bundle.model_id


# What is damaged is refused.


@pytest.fixture
def damaged(promoted, tmp_path) -> tuple[Store, Bundle]:
    store, _, bundle = promoted
    return copy_of(store, tmp_path / "store"), bundle


@pytest.mark.parametrize("data", [None, b"", b"other weights"])
def test_a_member_that_was_changed_is_refused(damaged, tmp_path, data) -> None:
    store, bundle = damaged
    key = bundle.members[1]
    store.delete(key)
    if data is not None:
        store.write(key, data)
    with pytest.raises(InputError, match=r"split=1\.safetensors: expected SHA-256") as caught:
        load_members(load_bundle(store, bundle.model_id), store, tmp_path)
    assert ("no file" in str(caught.value)) == (data is None)
    assert "promote the study again" in str(caught.value)


def test_weights_of_another_network_are_refused(damaged, tmp_path) -> None:
    store, bundle = damaged
    turned = dataclasses.replace(bundle, architecture="alexnet")
    with pytest.raises(InputError, match="expected weights of alexnet, found others"):
        load_members(turned, store, tmp_path)


def test_a_reference_that_was_changed_is_refused(damaged) -> None:
    store, bundle = damaged
    key = f"{bundle_prefix(bundle.model_id)}/reference.parquet"
    store.write(key, store.read(key)[:-1] + b"x")
    with pytest.raises(InputError, match=r"reference\.parquet: expected SHA-256"):
        reference(store, bundle.model_id)
    store.delete(key)
    with pytest.raises(InputError, match="found no file"):
        reference(store, bundle.model_id)


def test_a_card_that_was_changed_is_refused_and_made_again(damaged, promoted, tmp_path) -> None:
    store, bundle = damaged
    key = card_key(bundle.model_id)
    whole = store.read(key)
    store.write(key, whole.replace(b'"slope":', b'"slope":1', 1))
    with pytest.raises(InputError, match="delete this file and promote the study again"):
        load_bundle(store, bundle.model_id)
    store.delete(key)
    store.delete(bundle.members[0])
    with pytest.raises(InputError, match=r"expected a promoted model .*, found none"):
        load_bundle(store, bundle.model_id)
    make_bundle(store, BundleSpec(promoted[1], "resnet18", 0.95), tmp_path)
    assert store.read(key) == whole


# What stops a promotion.


def test_a_study_without_kept_models_is_refused(finished, tmp_path) -> None:
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    runs = read_table(store, "runs", study_id=plan.study_id).to_pylist()
    for row in runs:
        key = run_key(plan.study_id, row["split"], "resnet18")
        record = json.loads(store.read(key))
        store.write(key, json.dumps(record | {"model_sha256": None}, sort_keys=True).encode())
    from thyro_core.study.records import runs_table

    write_table(store, "runs", runs_table(store, plan), study_id=plan.study_id)
    with pytest.raises(InputError, match="found none of 0, 1, 2; run the study with THYRO_KEEP"):
        promote(store, PromotionConfig(study_id=plan.study_id), tmp_path)
    assert read_champion(store) is None


def test_a_study_that_does_not_verify_is_refused(finished, tmp_path) -> None:
    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    store.write(model_key(plan.study_id, 1, "resnet18"), b"other")
    with pytest.raises(ThyroError, match=r"found 1 failed checks: models: .*split=1"):
        promote(store, PromotionConfig(study_id=plan.study_id), tmp_path)
    assert store.keys("registry") == []
    with pytest.raises(InputError, match=r"split=1.*expected the trained weights with SHA-256"):
        make_bundle(store, BundleSpec(plan, "resnet18", 0.95), tmp_path)
    store.delete(model_key(plan.study_id, 1, "resnet18"))
    with pytest.raises(InputError, match="found no file"):
        make_bundle(store, BundleSpec(plan, "resnet18", 0.95), tmp_path)


def test_what_the_study_did_not_train_is_refused(promoted, tmp_path) -> None:
    store, plan, _ = promoted
    config = PromotionConfig(study_id=plan.study_id, architecture="vgg16")
    with pytest.raises(InputError, match="expected one of resnet18, found vgg16"):
        promote(store, config, tmp_path)
    with pytest.raises(InputError, match="expected a study s0000000000000000"):
        promote(store, PromotionConfig(study_id="s" + "0" * 16), tmp_path)


def test_a_worse_model_is_refused_before_anything_is_made(promoted, tmp_path, monkeypatch) -> None:
    store, plan, bundle = promoted
    copied = copy_of(store, tmp_path / "store")
    before = copied.keys("registry")
    import thyro_core.registry.promote as module

    real = module.compare_with_champion

    def worse(*arguments: object, **more: object):
        return type(real(*arguments, **more))(True, "AUC -0.5")

    monkeypatch.setattr(module, "compare_with_champion", worse)
    config = PromotionConfig(study_id=plan.study_id, sensitivity=0.6)
    with pytest.raises(GateError, match=r"found AUC -0\.5; .*give --force and --reason TEXT"):
        promote(copied, config, tmp_path)
    assert copied.keys("registry") == before
    forced = config.model_copy(update={"force": True, "reason": "new device"})
    change = promote(copied, forced, tmp_path).change
    assert change
    assert (change.how, change.why, change.gate) == ("forced", "new device", "AUC -0.5")
    assert change.before == bundle.model_id


def test_a_champion_that_is_damaged_can_be_replaced_by_force(promoted, tmp_path) -> None:
    store, plan, bundle = promoted
    copied = copy_of(store, tmp_path / "store")
    copied.write(card_key(bundle.model_id), b"{}")
    config = PromotionConfig(study_id=plan.study_id, sensitivity=0.6)
    with pytest.raises(InputError, match=f"expected the card of {bundle.model_id}"):
        promote(copied, config, tmp_path)
    forced = config.model_copy(update={"force": True, "reason": "the old one is damaged"})
    change = promote(copied, forced, tmp_path).change
    assert change
    assert change.gate.startswith(f"not compared with {bundle.model_id}: registry/models/")
    assert champion(copied) == change.model_id


@pytest.mark.parametrize(
    "wrong",
    [{"force": True}, {"force": True, "reason": " "}, {"sensitivity": 0.0}, {"sensitivity": 1.1},
     {"architecture": "vgg18"}, {"study_id": "m1"}, {"reason": "x" * 201}, {"other": 1}],
)  # fmt: skip
def test_a_promotion_that_makes_no_sense(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="validation error"):
        PromotionConfig.model_validate({"study_id": "s" + "0" * 16} | wrong)


# Crashes.


class PowerCutError(BaseException):
    """Stops a promotion as a power cut would."""


def test_a_cut_before_any_write_loses_nothing(finished, promoted, tmp_path, monkeypatch) -> None:
    """Three members, fingerprints, reference, card, champion: seven writes, seven cuts."""
    original, plan = finished
    whole, _, bundle = promoted
    prefix = bundle_prefix(bundle.model_id)
    store = copy_of(original, tmp_path / "store")
    real = Store.writing
    monkeypatch.setattr("thyro_core.registry.promote._verify", lambda *_: None)
    config = PromotionConfig(study_id=plan.study_id)
    for write in range(1, 8):
        count = 0

        def writing(self: Store, key: str, write: int = write):
            nonlocal count
            count += 1
            if count == write:
                raise PowerCutError(key)
            return real(self, key)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "writing", writing)
            with pytest.raises(PowerCutError):
                promote(store, config, tmp_path)
        assert read_champion(store) is None
        if write < 7:
            assert not store.exists(card_key(bundle.model_id))
            shutil.rmtree(store.path("registry"), ignore_errors=True)
    promote(store, config, tmp_path)
    assert champion(store) == bundle.model_id
    assert {key: store.read(key) for key in store.keys(prefix)} == {
        key: whole.read(key) for key in whole.keys(prefix)
    }


VICTIM = """
import sys
from pathlib import Path
from thyro_core.registry.promote import PromotionConfig, promote
from thyro_core.store.store import Store, open_store
real, count = Store.writing, 0
def writing(self, key):
    global count
    count += 1
    if count == 6:
        print(key, flush=True)
        sys.stdin.readline()
    return real(self, key)
Store.writing = writing
promote(open_store(sys.argv[1]), PromotionConfig(study_id=sys.argv[2]), Path(sys.argv[3]))
"""


@pytest.mark.slow
def test_a_killed_promotion_is_no_model_and_goes_on(finished, promoted, tmp_path) -> None:
    original, plan = finished
    _, _, bundle = promoted
    store = copy_of(original, tmp_path / "store")
    arguments = [store.url, plan.study_id, str(tmp_path / "scratch")]
    with subprocess.Popen(
        [sys.executable, "-c", VICTIM, *arguments],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdout.readline() == card_key(bundle.model_id) + "\n"
        process.kill()
    assert process.returncode == -9
    assert read_champion(store) is None
    with pytest.raises(InputError, match="expected a promoted model"):
        load_bundle(store, bundle.model_id)
    promote(store, PromotionConfig(study_id=plan.study_id), tmp_path)
    assert load_bundle(store, bundle.model_id) == bundle


@pytest.mark.slow
def test_the_process_that_promotes_loads_torch_late() -> None:
    script = (
        "import sys, thyro_core.registry.promote, thyro_core.registry.champion\n"
        "import thyro_core.registry.distance\n"
        "assert not {'torch', 'torchvision', 'ray', 'prefect'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)


@pytest.mark.slow
def test_a_study_of_two_members_has_intervals_or_none(tmp_path) -> None:
    """What is undefined is null on the card, and the bundle is made all the same."""
    store, plan = finished_study(tmp_path, splits=2, epochs=1)
    bundle = make_bundle(store, BundleSpec(plan, "resnet18", 0.95), tmp_path / "scratch")
    assert len(bundle.members) == 2
    assert b"NaN" not in store.read(card_key(bundle.model_id))
    assert bundle_making.number(float("nan")) is None
    assert open_store(store.url).exists(card_key(bundle.model_id))


def test_random_starting_weights_need_force(finished, tmp_path, monkeypatch) -> None:
    import thyro_core.registry.promote as module

    store, plan = copy_of(finished[0], tmp_path / "store"), finished[1]
    drawn = dataclasses.replace(plan, weights={"resnet18": StartingWeights("resnet18", "none")})
    monkeypatch.setattr(module, "load_current_plan", lambda *_: drawn)
    # Not reached without force; with it the next thing.
    monkeypatch.setattr(module, "_verify", lambda *_: pytest.fail("verified"))
    config = PromotionConfig(study_id=plan.study_id)
    with pytest.raises(GateError, match=r"found one that started from random .* give --force and"):
        promote(store, config, tmp_path)
    forced = config.model_copy(update={"force": True, "reason": "a demonstration"})
    with pytest.raises(pytest.fail.Exception, match="verified"):
        promote(store, forced, tmp_path)
    (warning,) = bundle_making._start_warnings(BundleSpec(drawn, "resnet18", 0.95))
    assert warning.startswith("resnet18 was trained from RANDOM weights")
    assert bundle_making._start_warnings(BundleSpec(plan, "resnet18", 0.95)) == ()
