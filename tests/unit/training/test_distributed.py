"""Workers that share each batch compute what one process computes on the whole batch."""

import copy
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.process_groups import PATIENCE, Workers
from tests.unit.training.test_loop import examples, nothing, recipe
from thyro_core.training.batches import batch_bounds
from thyro_core.training.distributed import SINGLE_WORKER, PeerLostError, WorkerGroup, current_group
from thyro_core.training.loop import Recipe, Run, start_run, train, train_step
from thyro_core.training.models import build
from thyro_core.training.sync_layers import SyncBatchNorm, sync_layers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    with Workers(2, tmp_path_factory.mktemp("team")) as workers:
        yield workers


def team_recipe(workers: WorkerGroup, precision: str = "fp32", **config: object) -> Recipe:
    how = recipe(precision, **config)
    return Recipe(how.config, how.seed, how.alpha, how.precision, how.device, workers)


def numbers(tensors: dict[str, Any]) -> dict[str, np.ndarray]:
    return {name: value.detach().double().numpy().copy() for name, value in tensors.items()}


def test_shares_cover_a_batch_in_order_and_a_process_alone_has_all_of_it() -> None:
    for size in (1, 2, 3, 8):
        for n in (1, 2, 5, 32):
            bounds = [WorkerGroup(rank, size).shard(n) for rank in range(size)]
            images = [image for start, stop in bounds for image in range(start, stop)]
            assert images == list(range(n))
    assert current_group() == SINGLE_WORKER
    assert SINGLE_WORKER.shard(7) == (0, 7)


def batchnorm_case(n: int, dtype: torch.dtype) -> tuple[nn.BatchNorm2d, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    layer = nn.BatchNorm2d(5)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(5, generator=generator) + 0.5)
        layer.bias.copy_(torch.randn(5, generator=generator))
    # A mean far from zero: where variance is a difference of squares, it drowns.
    values = (torch.randn((n, 5, 4, 3), generator=generator) + 30).to(dtype)
    values = values.contiguous(memory_format=torch.channels_last)
    slope = torch.randn((n, 5, 4, 3), generator=generator).to(dtype)
    return layer, values, slope


def batchnorm_results(layer: nn.Module, values: torch.Tensor, slope: torch.Tensor) -> dict:
    values.requires_grad_()
    out = layer(values)
    out.backward(slope)
    return {"out": out, "back": values.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}


def shared_batchnorm(n: int, dtype: torch.dtype) -> dict[str, np.ndarray]:
    workers = current_group()
    plain, values, slope = batchnorm_case(n, dtype)
    net = nn.Sequential(plain)
    start, stop = workers.shard(n)
    with sync_layers(net, workers, is_fused=False):
        assert isinstance(net[0], SyncBatchNorm)
        found = batchnorm_results(net[0], values[start:stop].clone(), slope[start:stop])
    assert net[0] is plain
    for name in ("weight", "bias"):
        found[name] = workers.all_reduce(found[name])
    return numbers(found | dict(plain.named_buffers()))


@pytest.mark.parametrize(
    ("n", "dtype", "tolerance"),
    [
        (6, torch.float32, 2e-5),
        (5, torch.float32, 2e-5),
        (1, torch.float32, 2e-5),  # one of the two has no image
        (5, torch.bfloat16, 2e-2),
        (1, torch.bfloat16, 2e-2),
    ],
)
def test_shared_batchnorm_is_batchnorm_of_the_whole_batch(two, n, dtype, tolerance) -> None:
    layer, values, slope = batchnorm_case(n, dtype)
    expected = numbers(batchnorm_results(layer, values, slope) | dict(layer.named_buffers()))
    parts = two.run(shared_batchnorm, n, dtype)
    for name, value in expected.items():
        found = [part[name] for part in parts]
        whole = np.concatenate(found) if name in ("out", "back") else found[0]
        np.testing.assert_allclose(whole, value, rtol=tolerance, atol=tolerance, err_msg=name)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        np.testing.assert_array_equal(parts[0][name], parts[1][name])


def test_in_evaluation_mode_shared_batchnorm_is_the_layer_it_stands_for() -> None:
    layer, values, _ = batchnorm_case(4, torch.float32)
    net = nn.Sequential(layer).eval()
    expected = net(values)
    with sync_layers(net, WorkerGroup(0, 2), is_fused=False):
        assert net[0] is not layer
        assert torch.equal(net(values), expected)


def first_gradients(architecture: str, side: int, n: int, precision: str) -> dict[str, Any]:
    """Gradients and loss of one step on n images, as this worker has them after the step."""
    workers = current_group()
    how = team_recipe(workers, "bf16" if precision == "bf16" else "fp32")
    kind = torch.float64 if precision == "fp64" else torch.float32
    run = start_run(build(architecture, side, seed=5).to(kind), how)
    run.model.train()
    generator = torch.Generator().manual_seed(7)
    images = torch.randn((n, 3, side, side), generator=generator).to(kind)
    labels = torch.randint(0, 2, (n,), generator=generator)
    start, stop = workers.shard(n)
    torch.manual_seed(3)  # dropout's masks
    with sync_layers(run.model, workers, is_fused=False) as batch:
        batch.size = n
        loss = train_step(run, images[start:stop], labels[start:stop], n, how)
    gradients = {name: p.grad for name, p in run.model.named_parameters()}
    buffers = dict(run.model.named_buffers())
    return numbers(gradients | buffers | {"loss": workers.all_reduce(loss.clone())})


def largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    """Largest difference of a tensor's values over its largest value."""
    assert found.keys() == expected.keys()
    return max(
        float(np.abs(found[name] - value).max() / max(np.abs(value).max(), 1e-6))
        for name, value in expected.items()
    )


@pytest.mark.parametrize(
    ("architecture", "side", "n"),
    [
        ("resnet18", 32, 7),
        ("efficientnet_b0", 64, 5),
        pytest.param("convnext_tiny", 64, 3, marks=pytest.mark.slow),
        pytest.param("alexnet", 63, 4, marks=pytest.mark.slow),
        pytest.param("vgg16", 32, 5, marks=pytest.mark.slow),
        pytest.param("inception_v3", 299, 4, marks=pytest.mark.slow),
    ],
)
def test_one_step_of_a_team_is_one_step_on_the_whole_batch(two, architecture, side, n) -> None:
    """In double precision, where rounding hides nothing; only the loss is always float32."""
    expected = first_gradients(architecture, side, n, "fp64")
    first, second = two.run(first_gradients, architecture, side, n, "fp64")
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
    assert largest_difference(first, expected) < 1e-6


def distance(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> float:
    squares = [((found[name] - value) ** 2).sum() for name, value in expected.items()]
    return float(np.sqrt(sum(squares)))


def test_in_bf16_a_team_is_as_near_the_fp32_step_as_one_process(two) -> None:
    """bf16 rounds a third of a gradient away, whoever computes it: equality means little."""
    case = ("resnet18", 32, 8)
    exact = first_gradients(*case, "fp32")
    alone = first_gradients(*case, "bf16")
    workers, _ = two.run(first_gradients, *case, "bf16")
    assert 0 < distance(workers, exact) < 1.3 * distance(alone, exact)


def dropped(n: int) -> np.ndarray:
    """What two layers of dropout let through of this worker's share of a batch."""
    workers = current_group()
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(50, 30), nn.Dropout(0.2))
    nn.init.ones_(net[1].weight)
    nn.init.zeros_(net[1].bias)
    start, stop = workers.shard(n)
    torch.manual_seed(3)
    with sync_layers(net, workers, is_fused=False) as batch:
        batch.size = n
        found = net(torch.arange(50.0 * n).view(n, 50)[start:stop])
    with sync_layers(net.eval(), workers, is_fused=False):
        assert torch.equal(net[0](found), found)
    return found.detach().numpy().copy()


@pytest.mark.parametrize("n", [5, 1])
def test_dropout_drops_of_each_image_what_one_process_would(two, n) -> None:
    found, expected = np.concatenate(two.run(dropped, n)), dropped(n)
    np.testing.assert_array_equal(found == 0, expected == 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def trained(
    n: int, precision: str, stop_after: int | None = None, **config: object
) -> tuple[list[float], dict[str, np.ndarray]]:
    """Losses and weights of a run that is cut after an epoch, if asked, and goes on."""
    how = team_recipe(current_group(), precision, epochs=2, learning_rate=1e-4, **config)
    run = start_run(build("resnet18", 32, seed=5), how)

    class CutError(Exception):
        pass

    kept: dict[str, object] = {}

    def cut(state: Run) -> None:
        if len(state.history) == stop_after:
            kept.update(copy.deepcopy(state.state()))
            raise CutError

    try:
        train(run, examples(32, n), None, how, cut, nothing)
    except CutError:
        run = start_run(build("resnet18", 32, seed=99), how)
        run.restore(kept)
        torch.manual_seed(12345)
        train(run, examples(32, n), None, how, nothing, nothing)
    names = [type(module).__name__ for module in run.model.modules()]
    assert "SyncBatchNorm" not in names
    return [epoch.loss for epoch in run.history], numbers(run.model.state_dict())


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_a_team_trains_like_one_process_and_repeats_itself_bit_for_bit(two, precision) -> None:
    losses, _ = trained(18, precision)
    assert len(losses) == 2
    (team_losses, weights), (other_losses, other_weights) = two.run(trained, 18, precision)
    assert team_losses == other_losses
    # Adam makes a whole step of a gradient that is but rounding: after the first one losses part,
    # as they do with another number of threads. What proves the step is its test in fp64.
    assert team_losses == pytest.approx(losses, rel=0.1 if precision == "fp32" else 0.2)
    (cut_losses, cut_weights), _ = two.run(trained, 18, precision, 1)
    assert cut_losses == team_losses
    for name, value in weights.items():
        np.testing.assert_array_equal(value, other_weights[name], err_msg=name)
        np.testing.assert_array_equal(value, cut_weights[name], err_msg=name)


def three_losses(n: int) -> tuple[list[float], list[float], bool]:
    (whole, weights), (cut, again) = trained(n, "fp32"), trained(n, "fp32", 1)
    return whole, cut, all(np.array_equal(weights[name], again[name]) for name in weights)


@pytest.mark.slow
def test_three_workers_take_batches_of_two_and_go_on_to_the_same_bits(tmp_path) -> None:
    assert [stop - start for start, stop in batch_bounds(5, 4)] == [2, 3]
    with Workers(3, tmp_path) as workers:
        found = workers.run(three_losses, 5)
    how = team_recipe(SINGLE_WORKER, batch_size=4)
    assert how.config.batch_size == 4
    assert all(whole == cut and same for whole, cut, same in found)


def disagree() -> None:
    current_group().check_equal(current_group().rank, "epochs done", torch.device("cpu"))


def test_workers_that_stand_at_different_epochs_do_not_train(two) -> None:
    for future in two.submit(disagree):
        with pytest.raises(RuntimeError, match=r"epochs done: .* found \[0, 1\] by rank"):
            future.result(PATIENCE)


def die_or_wait() -> None:
    workers = current_group()
    if not workers.is_leader:
        os.kill(os.getpid(), signal.SIGKILL)
    workers.all_reduce(torch.ones(3))


def test_a_worker_whose_peer_is_killed_says_so_and_does_not_hang(two) -> None:
    """The last test of this module: it takes one of the two with it."""
    first, _ = two.submit(die_or_wait)
    with pytest.raises(PeerLostError, match="lost another worker"):
        first.result(PATIENCE)
