import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.training.test_loop import CPU, examples, nothing, recipe
from thyro_core.training.batches import Examples, normalise
from thyro_core.training.inference import predict, recalibrate_batchnorm
from thyro_core.training.loop import start_run, train
from thyro_core.training.models import build


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4)
    )


def all_images(data: Examples) -> torch.Tensor:
    return normalise(data.grey(torch.arange(len(data))))


def test_recalibrated_statistics_are_those_of_the_training_images() -> None:
    data = examples(24, 30)
    model = small_network()
    images = all_images(data)
    recalibrate_batchnorm(model, data, CPU)
    first = model[0](images)
    assert torch.allclose(model[1].running_mean, first.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(model[1].running_var, first.var(dim=(0, 2, 3)), rtol=1e-4)
    second = model[3](
        torch.relu(
            nn.functional.batch_norm(
                first, None, None, model[1].weight, model[1].bias, training=True
            )
        )
    )
    assert torch.allclose(model[4].running_mean, second.mean(dim=(0, 2, 3)), atol=1e-4)
    assert torch.allclose(model[4].running_var, second.var(dim=(0, 2, 3)), rtol=1e-3)


def test_averages_over_several_batches_weigh_equally() -> None:
    data = examples(24, 300)
    model = small_network()
    recalibrate_batchnorm(model, data, CPU)
    first = model[0](all_images(data))
    assert torch.allclose(model[1].running_mean, first.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(model[1].running_var, first.var(dim=(0, 2, 3)), rtol=1e-2)


def test_recalibration_changes_statistics_only_and_forgets_the_past() -> None:
    data = examples(24, 40)
    one, other = small_network(), small_network()
    other[1].running_mean.fill_(50)
    other[1].num_batches_tracked.fill_(1000)
    momentum = one[1].momentum
    before = [parameter.clone() for parameter in one.parameters()]
    recalibrate_batchnorm(one, data, CPU)
    recalibrate_batchnorm(other, data, CPU)
    assert torch.equal(one[1].running_mean, other[1].running_mean)
    assert all(torch.equal(a, b) for a, b in zip(before, one.parameters(), strict=True))
    assert one[1].momentum == momentum
    assert not any(module.training for module in one.modules())


def test_dropout_rests_while_statistics_are_measured() -> None:
    data = examples(24, 40)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    recalibrate_batchnorm(model, data, CPU)
    assert torch.allclose(model[1].running_mean, all_images(data).mean(dim=(0, 2, 3)), atol=1e-5)


def test_a_network_without_batch_norm_is_left_alone() -> None:
    model = build("alexnet", 64, seed=1).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate_batchnorm(model, examples(64), CPU)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model.training


@pytest.mark.slow
def test_after_a_few_epochs_running_averages_misfit_and_recalibrated_ones_do_not() -> None:
    """What the pass is for: inference that computes what training computed."""
    data = examples(64, 96)
    how = recipe(epochs=3, batch_size=16, learning_rate=1e-4, rotation=0, flip_horizontal=0)
    run = start_run(build("resnet18", 64, seed=5), how)
    train(run, data, None, how, nothing, nothing)
    trained = copy.deepcopy(run.model).train()
    with torch.no_grad():
        intended = trained(all_images(data))

    def misfit() -> float:
        return float((predict(run.model, data, CPU) - intended).abs().mean())

    stale = misfit()
    recalibrate_batchnorm(run.model, data, CPU)
    assert misfit() < 0.02
    assert stale > 10 * misfit()


@pytest.mark.parametrize("n", [1, 31, 32, 33, 70])
def test_predictions_keep_the_order_and_are_those_of_one_batch(n: int) -> None:
    data = examples(32, n)
    model = build("resnet18", 32, seed=1).to(memory_format=torch.channels_last)
    logits = predict(model, data, CPU)
    assert logits.dtype == torch.float32
    assert logits.shape == (n, 2)
    with torch.no_grad():
        expected = model.eval()(all_images(data))
    assert torch.allclose(logits, expected, atol=1e-4)
    assert torch.equal(logits, predict(model, data, CPU))


def test_no_images_no_predictions() -> None:
    none = Examples(np.zeros((1, 32, 32), np.uint8), np.array([], np.int64), torch.tensor([]))
    assert predict(build("resnet18", 32, seed=1), none, CPU).shape == (0, 2)
