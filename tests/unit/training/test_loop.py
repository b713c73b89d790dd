import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from tests.support.plain_loop import plain_training
from thyro_core.config import StudyConfig
from thyro_core.training.batches import Examples, draw_epoch, stream_seed
from thyro_core.training.loop import (
    _DROPOUT_STREAM,
    Recipe,
    Run,
    balanced_alpha,
    focal_loss,
    learning_rate,
    start_run,
    train,
)
from thyro_core.training.models import build

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def nothing(*_: object) -> None:
    """What a caller who listens to nothing passes."""


def examples(side: int, n: int = 18) -> Examples:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (n + 4, side, side), dtype=np.uint8)
    labels = torch.from_numpy(rng.integers(0, 2, n))
    rows = rng.permutation(n + 4)[:n]
    pixels[rows[labels.numpy() == 1], : side // 2] //= 3
    return Examples(pixels, rows, labels)


def recipe(precision: str = "fp32", **config: object) -> Recipe:
    values = {"epochs": 2, "batch_size": 8, "learning_rate": 1e-3} | config
    return Recipe(StudyConfig.model_validate(values), 11, 0.7, precision, CPU)


@pytest.mark.parametrize(
    ("architecture", "side", "images", "rate"),
    [
        ("resnet18", 64, 18, 1e-4),
        ("alexnet", 64, 18, 1e-4),
        # Rounding grows with depth and steps: small steps for VGG16, a single one for Inception.
        pytest.param("vgg16", 32, 18, 1e-6, marks=pytest.mark.slow),
        pytest.param("inception_v3", 299, 8, 1e-4, marks=pytest.mark.slow),
    ],
)
def test_losses_equal_a_plain_pytorch_loops(
    architecture: str, side: int, images: int, rate: float
) -> None:
    data = examples(side, images)
    how = recipe(learning_rate=rate)
    model = build(architecture, side, seed=5)
    plain = copy.deepcopy(model)
    run = start_run(model, how)
    train(run, data, None, how, nothing, nothing)
    draws = []
    for epoch in range(2):
        drawn = draw_epoch(len(data), epoch, how.seed, how.config)
        seed = stream_seed(how.seed, _DROPOUT_STREAM, epoch)
        draws.append((drawn.order, drawn.angle, drawn.mirror, seed))
    pixels = data.pixels[data.rows]
    expected = plain_training(plain, pixels, data.labels, draws, how.config, how.alpha)
    assert [epoch.loss for epoch in run.history] == pytest.approx(expected, abs=1e-5)


# Where bfloat16 is emulated it takes minutes.
@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_training_learns_and_says_what_it_did(precision: str) -> None:
    how = recipe(precision, epochs=6)
    run = start_run(build("resnet18", 32, seed=5), how)
    seen: list[int] = []
    train(run, examples(32, 40), None, how, nothing, lambda done, _: seen.append(done))
    assert [epoch.epoch for epoch in run.history] == [1, 2, 3, 4, 5, 6]
    assert run.history[-1].loss < run.history[0].loss / 2
    assert seen == [8, 16, 24, 32, 40] * 6
    assert all(epoch.images_per_second > 0 for epoch in run.history)
    assert {epoch.val_loss for epoch in run.history} == {None}


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


@pytest.mark.parametrize(
    ("architecture", "precision"),
    [
        ("resnet18", "fp32"),
        ("alexnet", "fp32"),
        pytest.param("resnet18", "bf16", marks=pytest.mark.slow),
        # Where bfloat16 is emulated it takes minutes.
        pytest.param("alexnet", "bf16", marks=pytest.mark.slow),
    ],
)
def test_the_same_run_gives_the_same_bits_interrupted_or_not(
    architecture: str, precision: str
) -> None:
    data, how = examples(64), recipe(precision, epochs=3)
    whole = start_run(build(architecture, 64, seed=5), how)
    train(whole, data, None, how, nothing, nothing)

    class StopHereError(Exception):
        pass

    kept: dict[str, object] = {}

    def keep_and_stop(run: Run) -> None:
        kept.update(copy.deepcopy(run.state()))
        raise StopHereError

    first = start_run(build(architecture, 64, seed=5), how)
    with pytest.raises(StopHereError):
        train(first, data, None, how, keep_and_stop, nothing)
    torch.manual_seed(12345)  # another process's global generator is in another state
    second = start_run(build(architecture, 64, seed=99), how)
    second.restore(kept)
    train(second, data, None, how, nothing, nothing)

    assert [e.loss for e in second.history] == [e.loss for e in whole.history]
    for name, value in weights(whole).items():
        assert torch.equal(value, second.model.state_dict()[name]), name


def test_another_seed_trains_otherwise() -> None:
    data = examples(32)
    runs = []
    for seed in (1, 2):
        how = Recipe(recipe().config, seed, 0.7, "fp32", CPU)
        runs.append(start_run(build("resnet18", 32, seed=5), how))
        train(runs[-1], data, None, how, nothing, nothing)
    assert runs[0].history[0].loss != runs[1].history[0].loss


def test_a_released_run_keeps_its_network_and_nothing_that_only_training_needs() -> None:
    how = recipe()
    run = start_run(build("resnet18", 64, seed=5), how)
    train(run, examples(64), None, how, nothing, nothing)
    trained = copy.deepcopy(run.model.state_dict())
    assert run.optimiser.state
    run.release()
    assert not run.optimiser.state
    assert all(p.grad is None for p in run.model.parameters())
    assert all(torch.equal(value, trained[name]) for name, value in run.model.state_dict().items())
    assert len(run.history) == 2


def test_validation_images_decide_nothing() -> None:
    data, how = examples(32), recipe()
    results = []
    for validation in (None, examples(32, 10)):
        run = start_run(build("resnet18", 32, seed=5), how)
        train(run, data, validation, how, nothing, nothing)
        results.append(run)
    without, with_ = results
    assert [e.loss for e in without.history] == [e.loss for e in with_.history]
    assert all(math.isfinite(e.val_loss) for e in with_.history if e.val_loss is not None)
    assert None not in {e.val_loss for e in with_.history}
    for name, value in weights(without).items():
        assert torch.equal(value, with_.model.state_dict()[name]), name


def test_a_loss_that_is_not_finite_stops_the_run_and_says_the_cure() -> None:
    how = recipe(learning_rate=1.0, epochs=30, schedule="constant")
    run = start_run(build("alexnet", 64, seed=5), how)
    with torch.no_grad():
        next(iter(run.model.parameters())).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="lower learning_rate"):
        train(run, examples(64), None, how, nothing, nothing)


def test_focal_loss_golden_values() -> None:
    logits = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([1, 0, 0])
    p = [0.5, 1 / (1 + math.exp(-2)), 1 / (1 + math.e)]
    a = [0.8, 0.2, 0.2]
    expected = sum(-w * (1 - q) ** 2 * math.log(q) for w, q in zip(a, p, strict=True)) / 3
    assert float(focal_loss(logits, labels, 0.8, 2.0)) == pytest.approx(expected, rel=1e-6)


@given(
    values=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), min_size=1, max_size=8),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_focal_loss_without_focus_and_with_even_weights_is_half_the_cross_entropy(
    values: list[tuple[float, float]], seed: int
) -> None:
    logits = torch.tensor(values)
    labels = torch.randint(0, 2, (len(values),), generator=torch.Generator().manual_seed(seed))
    expected = functional.cross_entropy(logits, labels) / 2
    assert torch.allclose(focal_loss(logits, labels, 0.5, 0.0), expected, atol=1e-6)


def test_focal_loss_of_certain_logits_is_finite_and_so_is_its_gradient() -> None:
    logits = torch.tensor([[200.0, -200.0], [200.0, -200.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1]), 0.5, 2.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


def test_balanced_alpha_gives_both_classes_the_same_weight() -> None:
    labels = torch.tensor([0] * 291 + [1] * 66)
    alpha = balanced_alpha(labels)
    assert alpha == pytest.approx(291 / 357)
    assert alpha * 66 == pytest.approx((1 - alpha) * 291)


def test_learning_rate_schedules() -> None:
    cosine = StudyConfig(epochs=4, learning_rate=1e-4)
    rates = [learning_rate(cosine, epoch) for epoch in range(4)]
    expected = [1e-4, 1e-4 * (0.5 + 2**0.5 / 4), 0.5e-4, 1e-4 * (0.5 - 2**0.5 / 4)]
    assert rates == pytest.approx(expected)
    constant = StudyConfig(epochs=4, schedule="constant")
    assert {learning_rate(constant, epoch) for epoch in range(4)} == {1e-4}


def smooth_loss(precision: str, rate: float) -> float:
    """The first epoch's loss, over five steps, of a network of three layers without a kink."""
    torch.manual_seed(5)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2),
        nn.Tanh(),
        nn.Conv2d(8, 16, 3, stride=2),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(1),
        nn.Linear(64, 2),
    )
    how = recipe(precision, epochs=1, learning_rate=rate)
    run = start_run(net, how)
    train(run, examples(32, 40), None, how, nothing, nothing)
    assert {parameter.dtype for parameter in run.model.parameters()} == {torch.float32}
    return run.history[0].loss


BF16_ROUNDING = 2.0**-8
"""Largest relative error of rounding to bfloat16, which has 8 significant bits."""

# Each of three layers rounds its input, its weights and its output; the two tanh and the pooling
# round theirs. Independent errors add up as their squares do. The focal loss with exponent 2 goes
# with the square of the logits' error at most: it doubles a relative error. The longest sum has
# 75 products and is made in float32, which adds 75 x 2^-24: nothing beside the roundings.
BF16_TOLERANCE = 2 * math.sqrt(3 * 3 + 3) * BF16_ROUNDING


def test_bf16_trains_like_fp32_but_not_bit_for_bit() -> None:
    """Five steps in bfloat16 give float32's loss up to the roundings of `BF16_TOLERANCE`.

    The network is shallow and smooth, so that an error stays in proportion to the roundings that
    cause it. In a deep one with ReLU and batch norm over few images, a rounding that switches a
    unit on or off grows without such a bound, and differently on each kind of processor.
    """
    exact, rounded = smooth_loss("fp32", 1e-2), smooth_loss("bf16", 1e-2)
    assert rounded != exact
    assert rounded == pytest.approx(exact, rel=BF16_TOLERANCE)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_the_bound_between_bf16_and_fp32_tells_another_learning_rate(factor: float) -> None:
    exact, other = smooth_loss("fp32", 1e-2), smooth_loss("bf16", 1e-2 * factor)
    assert other != pytest.approx(exact, rel=BF16_TOLERANCE)


def test_bf16_keeps_the_weights_of_a_deep_network_in_float32() -> None:
    """The first step of ResNet18: another loss than float32's, the same length of the update.

    Adam's first update is the learning rate times the sign of each gradient, whose size cancels.
    """
    losses, updates = {}, {}
    for precision in ("fp32", "bf16"):
        how = recipe(precision, epochs=1, batch_size=18)
        run = start_run(build("resnet18", 32, seed=5), how)
        before = [parameter.detach().clone() for parameter in run.model.parameters()]
        train(run, examples(32), None, how, nothing, nothing)
        parameters = list(run.model.parameters())
        assert {parameter.dtype for parameter in parameters} == {torch.float32}
        losses[precision] = run.history[0].loss
        squares = [
            ((new.detach() - old) ** 2).sum() for new, old in zip(parameters, before, strict=True)
        ]
        updates[precision] = math.sqrt(float(sum(squares)))
    assert losses["bf16"] != losses["fp32"]
    assert updates["bf16"] == pytest.approx(updates["fp32"], rel=BF16_ROUNDING)
