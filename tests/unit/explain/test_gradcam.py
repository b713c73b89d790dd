"""Grad-CAM: equal to a plain autograd version and to the package, whole, and stored faithfully."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.training.test_loop import CPU, examples
from thyro_core.explain.gradcam import grad_cams, predict_with_cams
from thyro_core.explain.maps import CamError, cams_table
from thyro_core.training import torchvision_compat
from thyro_core.training.batches import Examples, normalise
from thyro_core.training.inference import predict, recalibrate_batchnorm
from thyro_core.training.models import LAST_CONV, build, last_layer

SIDES = {"resnet18": 64, "alexnet": 96, "vgg16": 64, "inception_v3": 107}
CELLS = 2
"""Side of every architecture's map at these sides."""
MAPS = np.random.default_rng(1).random((2, 2, 2, 2), np.float32)
KEYS = {"study_id": "s1", "split": 3, "architecture": "resnet18"}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def network():
    """Networks by architecture, made once; no test may change one."""
    made = {}

    def get(architecture: str) -> nn.Module:
        if architecture not in made:
            side = SIDES[architecture]
            made[architecture] = lively(build(architecture, side, seed=2), side)
        return made[architecture]

    return get


def lively(model: nn.Module, side: int) -> nn.Module:
    """Random weights with which nothing vanishes: batch norm that shifts, heads that differ."""
    generator = torch.Generator().manual_seed(5)

    def draw(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1 + 0.2 * draw(module.weight))
                module.bias.copy_(0.3 * draw(module.bias))
            elif isinstance(module, nn.Linear) and module.out_features == 2:
                module.weight.copy_(0.05 * draw(module.weight))
    recalibrate_batchnorm(model, examples(side, 12), CPU)  # else magnitudes explode
    return model.eval().to(memory_format=torch.channels_last)


def images(architecture: str, n: int) -> torch.Tensor:
    side = SIDES[architecture]
    grey = torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(n))
    grey[:, :, : side // 2] *= torch.linspace(0.1, 1, n).view(n, 1, 1, 1)
    return normalise(grey)


def plain_grad_cam(model, layer, image, target):
    """Equations 1 and 2 of the paper, cell by cell, through the whole network of one image."""
    kept = {}
    handle = model.get_submodule(layer).register_forward_hook(
        lambda _module, _inputs, output: kept.update(features=output)
    )
    score = model(image)[0, target]
    handle.remove()
    (slope,) = torch.autograd.grad(score, kept["features"])
    features, slope = kept["features"][0].double(), slope[0].double()
    channels, height, width = features.shape
    total = torch.zeros((height, width), dtype=torch.float64)
    for k in range(channels):
        alpha = slope[k].sum() / (height * width)
        total += alpha * features[k]
    return total.clamp(min=0).detach().numpy()


@pytest.mark.parametrize("architecture", SIDES)
def test_maps_are_those_of_plain_autograd_whatever_the_batch(network, architecture):
    model, layer, batch = network(architecture), LAST_CONV[architecture], images(architecture, 8)
    chosen = [0, 4, 7]
    expected = np.array(
        [[plain_grad_cam(model, layer, batch[i, None], c) for c in (0, 1)] for i in chosen]
    )
    peak = expected.max()
    assert (expected > 0.01 * peak).mean() >= 0.3, "too little to compare"
    assert np.abs(expected[:, 0] - expected[:, 1]).max() > 0.1 * peak
    maps = {
        size: torch.cat([grad_cams(model, architecture, part)[1] for part in batch.split(size)])
        for size in (1, 3, 8)
    }
    assert maps[8].dtype == torch.float32
    assert maps[8].shape == (8, 2, CELLS, CELLS)
    np.testing.assert_allclose(maps[1][chosen], expected, rtol=0, atol=1e-5 * peak)
    # Convolutions of another batch size add up in another order.
    np.testing.assert_allclose(maps[3], maps[1], rtol=0, atol=1e-5 * max(1, peak))
    np.testing.assert_allclose(maps[8], maps[1], rtol=0, atol=1e-5 * max(1, peak))


def test_a_map_need_not_be_square(network):
    model = network("alexnet")
    image = normalise(torch.rand(1, 1, 100, 150, generator=torch.Generator().manual_seed(1)))
    _, maps = grad_cams(model, "alexnet", image)
    assert maps.shape[2:] == (2, 3)
    for target in (0, 1):
        expected = plain_grad_cam(model, "features", image, target)
        np.testing.assert_allclose(maps[0, target], expected, atol=1e-5 * expected.max())
    assert float(maps.max()) > 0


@pytest.mark.parametrize("architecture", SIDES)
def test_logits_are_the_network_s_own(network, architecture):
    model, batch = network(architecture), images(architecture, 3)
    with torch.no_grad():
        expected = model(batch)
    logits, _ = grad_cams(model, architecture, batch)
    assert torch.equal(logits, expected)
    assert logits.dtype == torch.float32
    assert not logits.requires_grad


def test_it_is_the_package_s_grad_cam_before_its_scaling(network):
    torchvision_compat.ensure()
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import scale_cam_image
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, batch = copy.deepcopy(network("resnet18")), images("resnet18", 3)
    _, maps = grad_cams(model, "resnet18", batch)
    package = GradCAM(model, [model.layer4])
    for target in (0, 1):
        theirs = package(batch, [ClassifierOutputTarget(target)] * 3)
        scaled = scale_cam_image(scale_cam_image(maps[:, target].numpy(), (64, 64)))
        np.testing.assert_allclose(theirs, scaled, atol=1e-5)
        assert scaled.max() > 0.9


def test_magnitudes_are_kept(network):
    """Twice the head, twice the map: no map is scaled by its own range."""
    model, batch = network("resnet18"), images("resnet18", 2)
    double = copy.deepcopy(model)
    with torch.no_grad():
        double.fc.weight.mul_(2)
    _, maps = grad_cams(model, "resnet18", batch)
    _, twice = grad_cams(double, "resnet18", batch)
    assert torch.allclose(twice, 2 * maps, rtol=1e-5)
    assert 0.0 < float(maps.max()) != 1.0


def test_a_class_nothing_speaks_for_has_an_empty_map_and_the_other_keeps_its_own(network):
    model = copy.deepcopy(network("resnet18"))
    with torch.no_grad():
        model.fc.weight[0].abs_().neg_()  # layer4 ends in a ReLU: every channel speaks against
        model.fc.weight[1].abs_()
    _, maps = grad_cams(model, "resnet18", images("resnet18", 2))
    assert torch.equal(maps[:, 0], torch.zeros(2, 2, 2))
    assert (maps[:, 1] > 0).all()


def test_the_network_is_left_as_it_was(network):
    model = copy.deepcopy(network("alexnet"))
    model.classifier[1].weight.grad = torch.ones_like(model.classifier[1].weight)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()  # dropout must rest all the same
    first = grad_cams(model, "alexnet", images("alexnet", 2))
    second = grad_cams(model, "alexnet", images("alexnet", 2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert bool((model.classifier[1].weight.grad == 1).all())
    others = [p.grad for name, p in model.named_parameters() if name != "classifier.1.weight"]
    assert others == [None] * len(others)
    assert not any(module._forward_hooks for module in model.modules())


def test_nothing_before_the_last_feature_map_is_differentiated(network):
    model, seen = copy.deepcopy(network("resnet18")), []
    model.layer4.register_forward_hook(lambda *a: seen.append(a[2].requires_grad))
    with torch.no_grad():  # the caller's own mode does not matter either
        _, maps = grad_cams(model, "resnet18", images("resnet18", 1))
    assert seen == [False]
    assert float(maps.max()) > 0


def test_it_runs_where_only_deterministic_algorithms_may(network):
    batch = images("resnet18", 2)
    _, expected = grad_cams(network("resnet18"), "resnet18", batch)
    torch.use_deterministic_algorithms(True)
    try:
        _, maps = grad_cams(network("resnet18"), "resnet18", batch)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(maps, expected)


@pytest.mark.parametrize("n", [1, 32, 37])
def test_predictions_with_maps_are_the_predictions(n):
    data = examples(32, n)
    model = lively(build("resnet18", 32, seed=1), 32)
    with torch.no_grad():
        model.fc.weight[1].abs_()  # a map of one cell would else be empty as likely as not
    logits, maps = predict_with_cams(model, "resnet18", data, CPU)
    assert torch.equal(logits, predict(model, data, CPU))
    assert maps.shape == (n, 2, 1, 1)
    last = normalise(data.grey(torch.tensor([n - 1])))
    _, expected = grad_cams(model, "resnet18", last)
    np.testing.assert_allclose(maps[-1], expected[0], rtol=1e-4, atol=1e-6)
    assert maps[:, 1].min() > 0


def test_no_images_no_maps(network):
    none = Examples(np.zeros((1, 64, 64), np.uint8), np.array([], np.int64), torch.tensor([]))
    logits, maps = predict_with_cams(network("resnet18"), "resnet18", none, CPU)
    assert logits.shape == (0, 2)
    assert maps.shape == (0, 2, 0, 0)
    assert cams_table(KEYS, [], "layer4", maps).num_rows == 0


def test_maps_that_are_not_numbers_fail_the_job():
    model = lively(build("resnet18", 32, seed=1), 32)
    with torch.no_grad():
        model.fc.weight[1, 7] = float("nan")
    with pytest.raises(CamError, match=r"3 x 2 Grad-CAM maps .* images at positions 0, 1, 2;"):
        predict_with_cams(model, "resnet18", examples(32, 3), CPU)


@pytest.mark.parametrize(
    ("architecture", "side", "cells"),
    [
        ("densenet121", 64, 2),
        ("efficientnet_b0", 64, 2),
        ("efficientnet_v2_s", 110, 4),
        ("convnext_tiny", 64, 2),
        ("mobilenet_v3_large", 64, 2),
        ("swin_v2_t", 73, 3),
        ("vit_b_16", 224, 14),
    ],
)
def test_maps_of_other_networks_are_those_of_plain_autograd(architecture, side, cells):
    """One image through torchvision's whole network, and the equations by hand."""
    model = lively(build(architecture, side, seed=2), side)
    grey = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(4))
    grey[:, :, : side // 2] *= 0.3
    batch = normalise(grey)
    features = {}

    def keep(_module, _inputs, output):
        features["map"] = output
        return output.clone()  # DenseNet goes on in place

    handle = model.get_submodule(last_layer(architecture)).register_forward_hook(keep)
    expected = np.zeros((2, 2, cells, cells))
    for i, target in np.ndindex(2, 2):
        score = model(batch[i, None])[0, target]
        (slope,) = torch.autograd.grad(score, features["map"])
        own, slope = (t.detach()[0].double() for t in (features["map"], slope))
        if own.dim() == 2:  # tokens: the class token, then the patches row by row
            own, slope = (t[1:].T.reshape(-1, cells, cells) for t in (own, slope))
        total = sum(w.mean() * a for w, a in zip(slope, own, strict=True))
        expected[i, target] = np.maximum(total.numpy(), 0)
    handle.remove()
    logits, maps = grad_cams(model, architecture, batch)
    with torch.no_grad():
        # Attention rounds otherwise where nothing asks for gradients.
        torch.testing.assert_close(logits, model(batch), rtol=1e-5, atol=1e-6)
    peak = expected.max()
    assert (expected > 0.01 * peak).mean() >= 0.1, "too little to compare"
    np.testing.assert_allclose(maps.numpy(), expected, rtol=0, atol=2e-4 * peak)
