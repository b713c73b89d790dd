"""A promoted model as files that run without Thyro: they say what Thyro says."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from tqdm import tqdm

from tests.support.finished_study import copy_of
from thyro_core import NOTICE
from thyro_core.errors import InputError, ThyroError
from thyro_core.evaluation.out_of_fold import ensemble_margin
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.card import parse_card
from thyro_core.registry.card_bands import BandShares
from thyro_core.registry.export.export import CHECK_IMAGES, export_model
from thyro_core.registry.export.networks import (
    OPSET,
    NetworkFiles,
    export_network,
    onnx_logits,
)
from thyro_core.registry.predictor import load_model
from thyro_core.store.store import Store
from thyro_core.training.models import build
from thyro_core.training.recipe import network_input, network_recipe, plain_network

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", autouse=True)
def _no_monitor():
    """The bar of torch's exporter would leave a thread that looks after it."""
    interval, tqdm.monitor_interval = tqdm.monitor_interval, 0
    yield
    tqdm.monitor_interval = interval


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("exported")
    store: Store = copy_of(finished[0], folder / "store")
    spec = BundleSpec(finished[1], "resnet18", 0.95, BandShares(0.25, 0.25))
    bundle = make_bundle(store, spec, folder / "scratch")
    steps: list[tuple[int, int]] = []
    done = export_model(
        store,
        bundle,
        folder / "out",
        scratch=folder / "scratch",
        progress=lambda *step: steps.append(step),
    )
    assert steps == [(1, 3), (2, 3), (3, 3)]
    pictures = []
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (80, 120)).astype(np.uint8)
        pictures.append(folder / f"{number}.png")
        Image.fromarray(pixels).save(pictures[-1])
    expected = load_model(store, bundle.model_id).predict(pictures)["prob_malignant"].to_numpy()
    return store, bundle, done, pictures, expected


def test_the_plain_folder_runs_where_thyro_cannot_be_imported(exported, tmp_path: Path) -> None:
    _, bundle, done, pictures, expected = exported
    code = (
        "import runpy, sys; sys.modules['thyro_core'] = None; "
        "script = sys.argv[1]; sys.argv[:] = sys.argv[1:]; "
        "runpy.run_path(script, run_name='__main__')"
    )
    arguments = [str(done.folder / "plain" / "run.py"), *map(str, pictures)]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": ""},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    rows = [json.loads(line) for line in process.stdout.splitlines()]
    assert [row["prob_malignant"] for row in rows] == pytest.approx(expected, abs=1e-6)
    assert [row["positive"] for row in rows] == [bool(p >= bundle.threshold) for p in expected]
    assert "thyro" not in (done.folder / "plain" / "run.py").read_text().lower()


def test_onnx_says_what_thyro_says_by_its_metadata_alone(exported) -> None:
    """From the files' metadata to the probability, as their user has to go."""
    _, bundle, done, pictures, expected = exported
    margins = []
    for file in sorted((done.folder / "onnx").iterdir()):
        model = onnx.load(file)
        facts = {each.key: each.value for each in model.metadata_props}
        (opset,) = [each.version for each in model.opset_import if not each.domain]
        assert opset == OPSET
        shape, calibration = json.loads(facts["input"]), json.loads(facts["calibration"])
        side = shape["side"]
        grey = [
            Image.open(p).convert("L").resize((side, side), Image.Resampling.BILINEAR)
            for p in pictures
        ]
        pixels = torch.from_numpy(np.stack([np.array(each) for each in grey]))
        mean, sd = (torch.tensor(shape[name]).view(1, 3, 1, 1) for name in ("mean", "sd"))
        images = (pixels[:, None].float().expand(-1, 3, -1, -1) / 255 - mean) / sd
        logits = onnx_logits(file, images.contiguous()).double().numpy()
        margins.append(logits[:, 1] - logits[:, 0])
        assert facts["notice"] == NOTICE
        assert json.loads(facts["threshold"]) == bundle.threshold
        assert json.loads(facts["bands"])["benign_implausible_above"] == bundle.cuts.refer_above
        assert json.loads(facts["members"]).index(facts["member"]) == len(margins) - 1
    log_odds = ensemble_margin(np.stack(margins, axis=1))
    found = 1 / (1 + np.exp(-(calibration["intercept"] + calibration["slope"] * log_odds)))
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_card_goes_along_as_it_is_sealed(exported) -> None:
    _, bundle, done, _, _ = exported
    card = parse_card((done.folder / "card.json").read_bytes(), bundle.model_id)
    for name in card.members:
        data = (done.folder / "plain" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == card.files[name]
    assert NOTICE in (done.folder / "card.md").read_text()
    readme = (done.folder / "README.md").read_text()
    assert NOTICE in readme
    assert f"on {CHECK_IMAGES} images of its study" in readme
    assert done.gap <= 1e-3
    program = torch.export.load(done.folder / "torch" / "split=0.pt2", extra_files=(extra := {
        "model.json": ""
    }))  # fmt: skip
    assert json.loads(extra["model.json"])["model_id"] == bundle.model_id
    assert program.module()(torch.zeros(1, 3, 64, 64)).shape == (1, 2)


def test_a_format_can_be_left_out(exported, tmp_path: Path) -> None:
    store, bundle, _, _, _ = exported
    done = export_model(store, bundle, tmp_path / "out", ["plain"], scratch=tmp_path / "scratch")
    assert (done.formats, done.gap) == (("plain",), None)
    assert not (done.folder / "onnx").exists()
    assert not (done.folder / "torch").exists()
    assert (done.folder / "plain" / "run.py").exists()
    readme = (done.folder / "README.md").read_text()
    assert "`plain/`" in readme
    assert "`onnx/`" not in readme
    assert "onnxruntime's logits" not in readme


def test_the_licence_names_no_folder_of_this_machine(exported, finished) -> None:
    _, bundle, _, _, _ = exported
    origin = finished[1].weights["resnet18"].origin
    folder = origin.rpartition("/")[0].removeprefix("file://")
    assert len(folder) > 5
    assert folder not in bundle.card["licence"]
    assert "resnet18.safetensors" in bundle.card["licence"]


def test_a_folder_with_files_is_refused(exported, tmp_path: Path) -> None:
    store, bundle, _, _, _ = exported
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="expected a new or empty folder"):
        export_model(store, bundle, tmp_path, scratch=tmp_path)


def test_a_file_that_says_something_else_is_no_export(tmp_path: Path, monkeypatch) -> None:
    from thyro_core.registry.export import networks

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64, 2)).eval()
    model.requires_grad_(False)
    files = NetworkFiles(tmp_path / "a.onnx", tmp_path / "a.pt2")
    images = torch.randn(2, 3, 8, 8)
    assert export_network(model, images, files, {"notice": NOTICE}) < 1e-4
    monkeypatch.setattr(networks, "onnx_logits", lambda *_: model(images) + 0.01)
    with pytest.raises(ThyroError, match=r"a\.onnx: expected the network's logits to 0\.0001"):
        export_network(model, images, files, {"notice": NOTICE})


@pytest.mark.parametrize("architecture", ["alexnet", "mobilenet_v3_small"])
def test_torchvisions_network_is_the_studys(architecture) -> None:
    side = 64
    own = build(architecture, side, 3).eval()
    recipe = network_recipe(architecture, side)
    other = plain_network(recipe, own.state_dict())
    pixels = torch.randint(256, (2, side, side), dtype=torch.uint8)
    from thyro_core.training.batches import normalise

    with torch.inference_mode():
        expected = own(normalise(pixels.unsqueeze(1).float() / 255.0))
        found = other(network_input(recipe, pixels))
    assert torch.allclose(found, expected, atol=1e-5)


def test_a_network_of_another_normalisation_says_its_own() -> None:
    recipe = network_recipe("efficientnet_v2_l", 64)
    assert (recipe.mean, recipe.sd) == ((0.5,) * 3, (0.5,) * 3)
    assert network_recipe("inception_v3", 299).options == {
        "num_classes": 2, "aux_logits": True, "transform_input": False, "init_weights": False,
    }  # fmt: skip
