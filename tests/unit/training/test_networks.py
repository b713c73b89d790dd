"""Networks beyond the paper's four: torchvision's own lists, figures counted again, honest cuts."""

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from tests.unit.training.test_loop import CPU, examples
from thyro_core.config import ARCHITECTURES, CLASS_NAMES, StudyConfig
from thyro_core.config.networks import NETWORKS, RECIPE_SIDES, network_side, takes_one_side
from thyro_core.config.starting_weights import prefix_rule
from thyro_core.errors import InputError
from thyro_core.training import models, torchvision_compat
from thyro_core.training.anatomy import find_anatomy, meta_network
from thyro_core.training.batches import IMAGENET_MEAN, IMAGENET_SD, normalise
from thyro_core.training.inference import recalibrate_batchnorm
from thyro_core.training.memory import job_cpu_bytes, job_gpu_bytes
from thyro_core.training.networks import NETWORK_FIGURES
from thyro_core.training.parts import CutError, check_cut, cut, feature_grid

torchvision_compat.ensure()
from torchvision import models as official  # noqa: E402

TRIED = {
    "densenet121": ("features", "classifier"),
    "efficientnet_b0": ("features", "classifier.1"),
    "efficientnet_v2_s": ("features", "classifier.1"),
    "convnext_tiny": ("features", "classifier.2"),
    "mobilenet_v3_large": ("features", "classifier.3"),
    "swin_v2_t": ("permute", "head"),
    "vit_b_16": ("encoder.layers.encoder_layer_10", "heads.head"),
}
OTHERS = [name for name in NETWORKS if name not in (*TRIED, *ARCHITECTURES)]
DERIVED = [*TRIED, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]

pytestmark = pytest.mark.usefixtures("one_thread")


def first_weights(name):
    return next(iter(official.get_model_weights(name)))


def test_the_names_are_torchvision_s_classification_networks():
    assert sorted(NETWORKS) == sorted(official.list_models(module=official))
    assert NETWORKS[:4] == ARCHITECTURES


def test_sides_and_normalisation_are_those_of_the_weights():
    sides, norms = {}, {}
    for name in NETWORKS:
        recipe = first_weights(name).transforms()
        sides[name] = recipe.crop_size[0]
        if (tuple(recipe.mean), tuple(recipe.std)) != (IMAGENET_MEAN, IMAGENET_SD):
            norms[name] = (set(recipe.mean), set(recipe.std))
    assert {name: side for name, side in sides.items() if side != 224} == RECIPE_SIDES
    assert norms == {name: ({m}, {s}) for name, (m, s) in models.NORMALISATION.items()}
    assert {name: StudyConfig(architectures=(name,)).side(name) for name in NETWORKS} == sides


def test_only_networks_with_learned_positions_take_one_side():
    for name in NETWORKS:
        learns = name.startswith("vit") or name == "maxvit_t"
        assert takes_one_side(name) == learns
        if not learns:
            assert network_side(name, 64) >= 64


@pytest.mark.parametrize("name", DERIVED)
def test_the_figures_are_those_of_the_network(name):
    side, images = network_side(name, 224), 2
    network = meta_network(name, side).train()
    weights = {p.untyped_storage()._cdata for p in network.parameters()}
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(images, 3, side, side, device="meta"))
    activations = sum(s.nbytes() for place, s in kept.items() if place not in weights) / images
    state = network.state_dict().values()
    figures = NETWORK_FIGURES[name]
    assert figures.activation_bytes == pytest.approx(activations, rel=0.04)
    assert figures.parameters == pytest.approx(
        sum(p.numel() for p in network.parameters()), rel=0.01
    )
    assert figures.model_bytes == sum(each.numel() * each.element_size() for each in state)
    assert figures.gflop == pytest.approx(6 * first_weights(name).meta["_ops"], rel=0.01)


def test_memory_grows_with_the_network_s_own_figures():
    def need(name, **options):
        config = StudyConfig(architectures=(name,), **options)
        return job_cpu_bytes(config), job_gpu_bytes(config, 0)

    for name in TRIED:
        more = [a - b for a, b in zip(need(name, batch_size=64), need(name), strict=True)]
        assert more == pytest.approx(
            [32 * room * NETWORK_FIGURES[name].activation_bytes for room in (1.7, 2.0)]
        )


@pytest.mark.parametrize("name", DERIVED)
def test_head_and_last_feature_map_are_found_and_all_that_follows_rests_on_it(name):
    anatomy = find_anatomy(name)
    assert (anatomy.layer, anatomy.head) == TRIED.get(name, (anatomy.layer, anatomy.head))
    assert len(anatomy.blocks) >= 6
    for size in {64, 224} if not takes_one_side(name) else {224}:
        side = network_side(name, size)
        network = meta_network(name, side).eval()
        body, head = cut(network, anatomy.layer)
        features = body(torch.zeros(3, 3, side, side, device="meta"))
        grid = feature_grid(features)
        assert head(features).shape == (3, len(CLASS_NAMES))
        assert grid.dim() == 4
        assert grid.shape[0] == 3
        assert grid.shape[2] == grid.shape[3] >= 2
        # Every weight lies in one of the two parts and nowhere else.
        own, behind = set(body.state_dict()), set(head.state_dict())
        assert own | behind == set(network.state_dict())
        assert not own & behind
        assert {f"{anatomy.head}.weight", f"{anatomy.head}.bias"} <= behind
        blocks = tuple(f"{part}." for block in anatomy.blocks for part in block)
        outside = {key for key in own if not key.startswith(blocks)}
        assert {key.rpartition(".")[2] for key in outside} <= {"class_token", "pos_embedding"}


@pytest.mark.parametrize("name", DERIVED)
def test_nothing_but_the_head_differs_from_torchvision_s_network(name, monkeypatch):
    side, head = network_side(name, 224), find_anatomy(name).head
    ours = {key: value.shape for key, value in meta_network(name, side).state_dict().items()}
    monkeypatch.setattr("thyro_core.training.anatomy.CLASS_NAMES", [str(i) for i in range(1000)])
    theirs = {key: value.shape for key, value in meta_network(name, side).state_dict().items()}
    assert ours.keys() == theirs.keys()
    assert {key for key in ours if ours[key] != theirs[key]} == {f"{head}.weight", f"{head}.bias"}
    assert ours[f"{head}.bias"] == (2,)


@pytest.mark.parametrize("name", ["efficientnet_b0", "densenet121", "mobilenet_v3_large"])
def test_networks_are_made_by_their_seed_and_pass_the_check(name):
    state = torch.random.get_rng_state()
    one, same, other = (models.build(name, 64, seed) for seed in (1, 1, 2))
    key = f"{find_anatomy(name).head}.weight"
    assert torch.equal(one.state_dict()[key], same.state_dict()[key])
    assert not torch.equal(one.state_dict()[key], other.state_dict()[key])
    one.train()
    models.check_anatomy(one, name, 64)
    assert one.training
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_vision_transformer_starts_with_a_head_that_has_values_and_takes_one_side():
    model = models.build("vit_b_16", 224, 3)
    assert 0.01 < float(model.heads.head.weight.detach().std()) < 0.03
    models.check_anatomy(model, "vit_b_16", 224)
    with pytest.raises(InputError, match=r"vit_b_16.*224 pixels, the one.*found 64"):
        models.build("vit_b_16", 64, 3)
    with torch.no_grad():
        model.heads.head.weight.zero_()
    with pytest.raises(CutError, match="a gradient by its cells, found none"):
        models.check_anatomy(model, "vit_b_16", 224)


def test_a_layer_beside_which_values_pass_is_refused():
    model = models.build("resnet18", 64, 1).eval()
    with pytest.raises(CutError, match=r"layer3\.0\.conv1.*which needs more"):
        cut(model, "layer3.0.conv1")


class _Blurred(nn.Module):
    """A head that is not the network's own."""

    def __init__(self, head):
        super().__init__()
        self._head = head

    def forward(self, features):
        return self._head(features.mean(dim=(2, 3), keepdim=True) * 0.9 + features * 0.1) + 1


def test_parts_that_compute_something_else_are_refused():
    model = models.build("mobilenet_v3_small", 64, 1).eval()
    body, head = cut(model, "features")
    check_cut(model, (body, head), 64)
    with pytest.raises(CutError, match="the network's own logits behind it, found others"):
        check_cut(model, (body, _Blurred(head)), 64)
    body, head = cut(model, "avgpool")
    with pytest.raises(CutError, match=r"a map, found the shape \(1, 576, 1, 1\)"):
        check_cut(model, (body, head), 64)


def test_tokens_are_laid_out_as_the_patches_lie():
    grid = torch.arange(2 * 3 * 4 * 4.0).reshape(2, 3, 4, 4)
    tokens = torch.cat([torch.full((2, 1, 3), -1.0), grid.flatten(2).transpose(1, 2)], dim=1)
    assert torch.equal(feature_grid(tokens), grid)
    assert feature_grid(grid) is grid


def test_the_features_are_left_as_they_are_by_what_follows():
    """DenseNet's ReLU works in place: a screening's second look at its features must see them."""
    model = models.build("densenet121", 64, 1).eval()
    body, head = models.body_and_head(model, "densenet121")
    with torch.no_grad():
        features = body(torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)))
        before = features.clone()
        head(features)
    assert (before < 0).any()
    assert torch.equal(features, before)


def test_another_normalisation_is_made_of_imagenet_s(monkeypatch):
    monkeypatch.setattr(models, "NORMALISATION", {"mobilenet_v3_small": (0.5, 0.25)})
    model = models.build("mobilenet_v3_small", 64, 1)
    recalibrate_batchnorm(model, examples(64, 12), CPU)  # else nothing of an image comes through
    plain = official.mobilenet_v3_small(num_classes=2).eval()
    plain.load_state_dict(model.state_dict())
    grey = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    body, head = models.body_and_head(model, "mobilenet_v3_small")
    with torch.no_grad():
        expected = plain(((grey - 0.5) / 0.25).expand(-1, 3, -1, -1))
        for logits in (model(normalise(grey)), head(body(normalise(grey)))):
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.abs().max())
        assert not torch.allclose(plain(normalise(grey)), expected, rtol=0.01)
        torch.testing.assert_close(copy.deepcopy(model)(normalise(grey)), model(normalise(grey)))


@pytest.mark.parametrize(
    ("name", "earlier"),
    [
        ("densenet121", [(".norm1.", ".norm.1."), (".conv2.", ".conv.2.")]),
        ("mnasnet0_5", []),
        ("googlenet", []),
    ],
)
def test_official_files_are_taken_by_the_names_that_they_have(name, earlier):
    source = models.build(name, 64, 1).state_dict()
    tensors = {}
    for key, value in source.items():
        if key.startswith(f"{find_anatomy(name).head}."):
            tensors[key] = value.new_ones((1000, *value.shape[1:]))
            continue
        old_key = key
        for new, old in earlier if "denselayer" in key else ():
            old_key = old_key.replace(new, old)
        tensors[old_key] = value
    if name == "googlenet":
        tensors["aux1.fc2.weight"] = torch.ones(1000, 1024)
    model = models.build(name, 64, 2)
    head = model.state_dict()[f"{find_anatomy(name).head}.weight"].clone()
    assert models.load_starting_weights(model, tensors, name) == ()
    for key, value in model.state_dict().items():
        if key.startswith(f"{find_anatomy(name).head}."):
            continue
        assert torch.equal(value, source[key]), key
    assert torch.equal(model.state_dict()[f"{find_anatomy(name).head}.weight"], head)


def test_transformers_files_of_earlier_versions_name_their_layers_otherwise():
    assert models._current_name("encoder.layers.encoder_layer_3.mlp.linear_2.bias") == (
        "encoder.layers.encoder_layer_3.mlp.3.bias"
    )
    assert "encoder.layers.encoder_layer_3.mlp.3.bias" in meta_network("vit_b_32", 224).state_dict()


def test_a_network_is_given_all_its_tensors_or_none():
    model = models.build("mnasnet0_5", 64, 1)
    state = dict(models.build("mnasnet0_5", 64, 2).state_dict())
    models.load_tensors(model, state)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    del state["classifier.1.bias"]
    with pytest.raises(RuntimeError, match=r"classifier\.1\.bias"):
        models.load_tensors(model, state)


def other_program_s(source):
    """ResNet18 as a program keeps it that numbers the layers, with a head of its own."""
    places = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    tensors = {}
    for name, value in source.items():
        first, _, rest = name.partition(".")
        if first in places:
            tensors[f"backbone.{places[first]}.{rest}"] = value
    return tensors | {"projector.0.weight": torch.ones(4, 4), "projector.0.bias": torch.ones(4)}


RULES = tuple(
    prefix_rule(text)
    for text in (
        "backbone.0.=>conv1.", "backbone.1.=>bn1.", "backbone.4.=>layer1.", "backbone.5.=>layer2.",
        "backbone.6.=>layer3.", "backbone.7.=>layer4.",
    )
)  # fmt: skip


def test_tensors_of_another_program_are_taken_by_declared_beginnings():
    source = models.build("resnet18", 64, 1).state_dict()
    model = models.build("resnet18", 64, 2)
    tensors, foreign = models.rename_tensors(model, other_program_s(source), RULES)
    assert foreign == ("projector.0",)
    assert models.load_starting_weights(model, tensors, "resnet18") == ()
    for name, value in model.state_dict().items():
        assert torch.equal(value, source[name]) == (not name.startswith("fc.")), name


def test_what_the_beginnings_leave_out_starts_at_random_and_is_named():
    source = models.build("resnet18", 64, 1).state_dict()
    model = models.build("resnet18", 64, 2)
    tensors, foreign = models.rename_tensors(model, other_program_s(source), RULES[:-1])
    assert foreign == ("backbone.7", "projector.0")
    random = models.load_starting_weights(model, tensors, "resnet18")
    assert random == ("layer4.0", "layer4.1")


def test_beginnings_that_fit_nothing_or_two_tensors_are_refused():
    model = models.build("resnet18", 64, 2)
    tensors = {"encoder.conv1.weight": torch.ones(64, 3, 7, 7), "conv1.weight": torch.ones(1)}
    with pytest.raises(InputError, match=r"weights_prefix \(module\.\), found encoder\.conv1"):
        models.rename_tensors(model, tensors, [prefix_rule("module.=>")])
    with pytest.raises(InputError, match=r"one tensor for conv1\.weight, found two, conv1\.weight"):
        models.rename_tensors(model, tensors, [prefix_rule("encoder.=>")])


@pytest.mark.parametrize("text", ["backbone.", "=>conv1.", "a=>b=>c", ""])
def test_a_beginning_has_one_form(text):
    with pytest.raises(ValidationError, match="expected OLD=>NEW"):
        StudyConfig(weights_prefix=(text,))


def test_beginnings_are_part_of_a_study_only_where_there_are_some():
    assert "weights_prefix" not in StudyConfig().model_dump()
    config = StudyConfig(weights_prefix=("backbone. => ", "fc.=>head."))
    assert config.model_dump()["weights_prefix"] == ("backbone. => ", "fc.=>head.")
    assert config.prefix_rules == (("backbone.", ""), ("fc.", "head."))
    with pytest.raises(ValidationError, match="named twice"):
        StudyConfig(weights_prefix=("a.=>", "a.=>b."))
