"""The networks: torchvision's forward, two-class heads, repeatable starts, honest loading."""

import subprocess
import sys
import warnings

import pytest
import torch
from safetensors.torch import load_file

from tests.support.places import SHARED
from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.errors import InputError
from thyro_core.training import models, torchvision_compat
from thyro_core.training.pooling import DeterministicPool

torchvision_compat.ensure()
from torchvision import models as official  # noqa: E402

SMALL = {"resnet18": 64, "alexnet": 64, "vgg16": 64, "inception_v3": 80}
HEADS = {
    "resnet18": {"fc"},
    "alexnet": {"classifier.6"},
    "vgg16": {"classifier.6"},
    "inception_v3": {"fc", "AuxLogits.fc"},
}


pytestmark = pytest.mark.usefixtures("one_thread")


def plain(architecture, **options):
    """torchvision's network, made without any of our code."""
    if architecture == "inception_v3":
        options = {"transform_input": False, "init_weights": False} | options
    return getattr(official, architecture)(num_classes=2, **options)


def slow_vgg16(cases):
    """VGG16's 134 million random numbers take seconds: `make test-all` draws them."""
    rows = [case if isinstance(case, tuple) else (case,) for case in cases]
    marks = [(pytest.mark.slow,) if "vgg16" in row else () for row in rows]
    return [pytest.param(*row, marks=mark) for row, mark in zip(rows, marks, strict=True)]


def images(side, n=1):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(1))


def mirrored(architecture):
    file = SHARED / "weights" / f"{architecture}.safetensors"
    if not file.is_file():
        pytest.skip(f"{file} is absent; name its folder's parent in THYRO_SHARED")
    return load_file(file)


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("resnet18", 224),
        ("resnet18", 64),
        ("alexnet", 224),
        ("alexnet", 100),
        ("vgg16", 224),
        pytest.param("vgg16", 64, marks=pytest.mark.slow),
        ("inception_v3", 299),
        ("inception_v3", 80),
    ],
)
def test_forward_equals_plain_torchvision(architecture, side):
    ours = models.build(architecture, side, seed=3).eval()
    with torch.device("meta"):
        theirs = plain(architecture).eval()
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=False, assign=True)
    assert not unexpected
    assert all(name.startswith("AuxLogits.") for name in missing)
    assert bool(missing) == ((architecture, side) == ("inception_v3", 80))
    x = images(side)
    with torch.inference_mode():
        logits, expected = ours(x), theirs(x)
    assert logits.shape == (1, 2)
    assert torch.equal(logits, expected)


def test_inception_trains_with_two_class_auxiliary_head_from_299():
    model = models.build("inception_v3", 299, seed=0).train()
    logits, aux = model(images(299, n=2))
    assert logits.shape == aux.shape == (2, 2)
    assert model.transform_input is False


def test_inception_below_299_trains_without_auxiliary_head():
    model = models.build("inception_v3", 298, seed=0).train()
    assert isinstance(model(images(298, n=2)), torch.Tensor)
    assert not any(name.startswith("AuxLogits") for name in model.state_dict())


def test_auxiliary_head_really_does_not_fit_below_299():
    """The reason for the bound of 299: torchvision's own network fails one pixel below."""
    with pytest.raises(RuntimeError, match="Kernel size"):
        plain("inception_v3").train()(images(298, n=2))


@pytest.mark.parametrize("architecture", slow_vgg16(ARCHITECTURES))
def test_all_heads_have_two_classes_and_no_other_layer_differs(architecture):
    side = StudyConfig().side(architecture)
    ours = {k: v.shape for k, v in models.build(architecture, side, seed=0).state_dict().items()}
    with torch.device("meta"):
        options = {"init_weights": False} if architecture == "inception_v3" else {}
        theirs = getattr(official, architecture)(num_classes=1000, **options).state_dict()
    differing = {k.rpartition(".")[0] for k, v in theirs.items() if ours[k] != v.shape}
    assert ours.keys() == theirs.keys()
    assert differing == HEADS[architecture]
    assert all(ours[f"{head}.bias"] == (2,) for head in differing)


@pytest.mark.parametrize("architecture", slow_vgg16(ARCHITECTURES))
def test_build_is_decided_by_its_seed_alone(architecture):
    side = SMALL[architecture]
    torch.manual_seed(11)
    first = models.build(architecture, side, seed=5).state_dict()
    torch.manual_seed(12)
    again = models.build(architecture, side, seed=5).state_dict()
    other = models.build(architecture, side, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    for head in HEADS[architecture] - {"AuxLogits.fc"}:
        assert not torch.equal(first[f"{head}.weight"], other[f"{head}.weight"])


def test_build_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    models.build("resnet18", 64, seed=5)
    assert torch.equal(torch.rand(3), expected)


def test_build_never_seeds_the_gpus(monkeypatch):
    def refuse(*_):
        pytest.fail("the GPUs' generators were seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", refuse)
    monkeypatch.setattr(torch, "manual_seed", refuse)
    models.build("resnet18", 64, seed=5)


@pytest.mark.parametrize("architecture", slow_vgg16(ARCHITECTURES))
def test_random_start_is_torchvisions(architecture):
    """The same generator state makes the same weights as a call of torchvision by hand."""
    ours = models.build(architecture, SMALL[architecture], seed=9).state_dict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(9)
        options = (
            {"aux_logits": False, "init_weights": True} if architecture == "inception_v3" else {}
        )
        theirs = plain(architecture, **options).state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("architecture", "least", "cells"),
    slow_vgg16(
        [("resnet18", 32, 1), ("alexnet", 63, 1), ("vgg16", 32, 1), ("inception_v3", 75, 1)]
    ),
)
def test_smallest_side_works_and_one_pixel_less_is_refused(architecture, least, cells):
    model = models.build(architecture, least, seed=0).eval()
    shapes = []
    layer = model.get_submodule(models.LAST_CONV[architecture])
    layer.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    with torch.inference_mode():
        assert model(images(least)).isfinite().all()
    assert shapes[0][2:] == (cells, cells)
    with pytest.raises(InputError, match=rf"{architecture}.*at least {least}.*{least - 1}"):
        models.build(architecture, least - 1, seed=0)


@pytest.mark.parametrize(
    ("architecture", "shape"),
    slow_vgg16(
        [
            ("resnet18", (1, 512, 7, 7)),
            ("alexnet", (1, 256, 6, 6)),
            ("vgg16", (1, 512, 7, 7)),
            ("inception_v3", (1, 2048, 8, 8)),
        ]
    ),
)
def test_last_conv_names_the_last_feature_map(architecture, shape):
    side = StudyConfig().side(architecture)
    model = models.build(architecture, side, seed=0).eval()
    found = []
    layer = model.get_submodule(models.LAST_CONV[architecture])
    layer.register_forward_hook(lambda _m, _i, output: found.append(tuple(output.shape)))
    with torch.inference_mode():
        model(images(side))
    assert found == [shape]


@pytest.mark.parametrize(
    ("architecture", "first", "last"), [("alexnet", 223, 254), ("vgg16", 224, 255)]
)
def test_pooling_may_be_left_out_exactly_where_it_changes_nothing(architecture, first, last):
    with torch.device("meta"):
        features = getattr(official, architecture)(num_classes=2).features
    for side in (first - 1, first, last, last + 1):
        cells = features(torch.empty(1, 3, side, side, device="meta")).shape[-1]
        replaced = side in models._POOLED_SIDES[architecture[:4]]
        assert replaced == (cells == {"alexnet": 6, "vgg16": 7}[architecture])


def test_pooling_is_left_out_there_and_kept_elsewhere():
    kinds = [type(models.build("alexnet", side, seed=0).avgpool) for side in (222, 223)]
    assert kinds == [DeterministicPool, torch.nn.Identity]


@pytest.mark.parametrize(
    ("architecture", "random"),
    slow_vgg16(
        [
            ("resnet18", ()),
            ("alexnet", ("classifier.1", "classifier.4")),
            ("vgg16", ("classifier.0", "classifier.3")),
            ("inception_v3", ("AuxLogits",)),
        ]
    ),
)
def test_real_weights_load_and_what_stays_random_is_named(architecture, random):
    tensors = mirrored(architecture)
    side = StudyConfig().side(architecture)
    model = models.build(architecture, side, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert models.load_starting_weights(model, tensors, architecture) == random
    for name, value in model.state_dict().items():
        is_head = name.rpartition(".")[0] in HEADS[architecture]
        if name in tensors and not is_head:
            assert torch.equal(value, tensors[name].to(before[name].dtype))
        else:
            assert torch.equal(value, before[name])
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.fixture
def resnet():
    return models.build("resnet18", 64, seed=0)


@pytest.fixture(scope="module")
def tensors():
    """A complete float16 file of ResNet18 with ImageNet's head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state = official.resnet18().state_dict()
    return {k: v.half() if v.is_floating_point() else v for k, v in state.items()}


def test_load_takes_all_but_the_head(resnet, tensors):
    head = resnet.fc.weight.detach().clone()
    assert models.load_starting_weights(resnet, tensors, "resnet18") == ()
    assert torch.equal(resnet.fc.weight, head)
    assert torch.equal(resnet.layer4[1].conv2.weight, tensors["layer4.1.conv2.weight"].float())
    assert resnet.conv1.weight.dtype == torch.float32


def test_missing_layers_are_named_once_in_network_order_and_step_counts_do_not_matter(
    resnet, tensors
):
    counted = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    assert models.load_starting_weights(resnet, counted, "resnet18") == ()
    gone = ("layer3.1.", "bn1.", "layer1.0.conv2")
    some = {k: v for k, v in counted.items() if not k.startswith(gone)}
    assert models.load_starting_weights(resnet, some, "resnet18") == ("bn1", "layer1.0", "layer3.1")


def test_a_single_running_statistic_that_is_missing_counts(resnet, tensors):
    some = {k: v for k, v in tensors.items() if k != "layer2.0.bn1.running_var"}
    assert models.load_starting_weights(resnet, some, "resnet18") == ("layer2.0",)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv9.weight": torch.zeros(1)}, r"unknown tensor 'conv9\.weight'"),
        ({"conv1.weight": torch.zeros(64, 1, 7, 7)}, r"\(64, 3, 7, 7\), found \(64, 1, 7, 7\)"),
        ({"bn1.bias": torch.zeros(64, dtype=torch.uint8)}, r"float32, found torch\.uint8"),
        ({"bn1.bias": torch.full((64,), torch.nan)}, "finite numbers in bn1.bias"),
        ({"bn1.bias": torch.full((64,), torch.inf)}, "finite numbers in bn1.bias"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_origin(resnet, tensors, change, message):
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    with pytest.raises(InputError, match=message) as caught:
        models.load_starting_weights(
            resnet, tensors | change, "resnet18", "mirror: s3://b/w.safetensors"
        )
    assert str(caught.value).startswith("mirror: s3://b/w.safetensors")
    after = resnet.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("keys", [(), ("fc.weight", "fc.bias")])
def test_a_file_without_any_feature_layer_is_refused(resnet, tensors, keys):
    with pytest.raises(InputError, match="found none of its feature layers"):
        models.load_starting_weights(resnet, {key: tensors[key] for key in keys}, "resnet18")


@pytest.mark.parametrize("architecture", SMALL)
def test_every_normalisation_is_one_that_is_measured_anew_and_shared_by_workers(architecture):
    """`recalibrate_batchnorm` and `sync_layers` know `BatchNorm2d` alone."""
    model = models.build(architecture, SMALL[architecture], seed=0)
    kinds = {
        type(m) for m in model.modules() if hasattr(m, "running_mean") or "Norm" in repr(type(m))
    }
    assert kinds <= {torch.nn.BatchNorm2d}


def test_another_networks_file_is_refused(tensors):
    with pytest.raises(InputError, match="not weights of alexnet"):
        models.load_starting_weights(models.build("alexnet", 64, seed=0), tensors, "alexnet")


def test_auxiliary_tensors_are_skipped_where_that_head_is_off():
    side = SMALL["inception_v3"]
    state = plain("inception_v3").state_dict()
    model = models.build("inception_v3", side, seed=0)
    assert any(name.startswith("AuxLogits.conv0") for name in state)
    assert models.load_starting_weights(model, state, "inception_v3") == ()
    assert torch.equal(
        model.Mixed_7c.branch1x1.conv.weight, state["Mixed_7c.branch1x1.conv.weight"]
    )


IMPORT = """
import warnings
warnings.simplefilter("error")
import torch
from thyro_core.training import torchvision_compat
assert not hasattr(torch.ops.torchvision, "nms"), "importing the module did the work"
torchvision_compat.ensure()
torchvision_compat.ensure()
import gc; gc.collect()
import torchvision
from torchvision.transforms import v2
"""


def test_torchvision_imports_in_a_fresh_process():
    subprocess.run([sys.executable, "-c", IMPORT], check=True, capture_output=True, timeout=120)


def test_nothing_is_declared_where_compiled_operators_load(monkeypatch):
    """With the operators gone from sight, a loadable library means hands off."""
    monkeypatch.setattr(torchvision_compat, "hasattr", lambda *_: False, raising=False)
    loaded = []
    monkeypatch.setattr(torch.ops, "load_library", loaded.append)
    monkeypatch.setattr(torch.library, "Library", lambda *_: pytest.fail("declared all the same"))
    assert torchvision_compat._declare_operators.__wrapped__() is None
    assert [path.name.startswith("_C") for path in loaded] == [True]


def test_absent_torchvision_is_named(monkeypatch):
    monkeypatch.setattr(torchvision_compat, "hasattr", lambda *_: False, raising=False)
    monkeypatch.setattr(torchvision_compat.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match="torchvision is not installed"):
        torchvision_compat._declare_operators.__wrapped__()


def test_build_raises_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        models.build("inception_v3", 80, seed=0)
