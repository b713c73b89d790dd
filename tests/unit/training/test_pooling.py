"""Pooling by products of matrices is torch's adaptive pooling."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from thyro_core.training import pooling
from thyro_core.training.models import build
from thyro_core.training.pooling import DeterministicPool, pool_by_products


@pytest.mark.parametrize(
    ("height", "width", "out"),
    [(6, 6, (6, 6)), (13, 13, (6, 6)), (7, 9, (6, 6)), (2, 3, (7, 7)), (1, 1, (6, 6)),
     (31, 17, (7, 5)), (5, 5, (1, 1))],
)  # fmt: skip
def test_it_averages_the_cells_of_torchs_pooling(
    height: int, width: int, out: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    values = torch.randn(2, 3, height, width, requires_grad=True)
    other = values.detach().clone().requires_grad_()
    found, expected = pool_by_products(values, *out), functional.adaptive_avg_pool2d(other, out)
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, atol=1e-6)
    slope = torch.randn_like(expected)
    found.backward(slope)
    expected.backward(slope)
    assert torch.allclose(values.grad, other.grad, atol=1e-6)


def test_averages_are_made_in_float32_whatever_the_training_computes_in() -> None:
    values = torch.rand(1, 1, 13, 13).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pool_by_products(values, 6, 6)
    assert found.dtype == torch.bfloat16
    exact = functional.adaptive_avg_pool2d(values.float(), 6)
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("deterministic", [True, False])
def test_on_a_cpu_it_is_torchs_own_to_the_bit(deterministic: bool) -> None:
    values = torch.rand(2, 3, 13, 11)
    torch.use_deterministic_algorithms(deterministic)
    try:
        found = DeterministicPool((6, 6))(values)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(found, nn.AdaptiveAvgPool2d((6, 6))(values))


@pytest.mark.parametrize("deterministic", [True, False])
def test_elsewhere_a_deterministic_run_pools_by_products(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool
) -> None:
    """On torch's device without data: no GPU is needed to ask which way is taken."""
    sizes = []

    def products(values: torch.Tensor, height: int, width: int) -> torch.Tensor:
        sizes.append((height, width))
        return values.new_empty((*values.shape[:2], height, width))

    monkeypatch.setattr(pooling, "pool_by_products", products)
    values = torch.empty(2, 3, 13, 11, device="meta")
    torch.use_deterministic_algorithms(deterministic)
    try:
        shapes = [DeterministicPool(size)(values).shape[2:] for size in ((6, None), 4)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert shapes == [(6, 11), (4, 4)]
    assert sizes == ([(6, 11), (4, 4)] if deterministic else [])


@pytest.mark.parametrize(
    ("architecture", "side", "kind"),
    [("alexnet", 96, DeterministicPool), ("alexnet", 224, nn.Identity),
     ("resnet18", 96, nn.AdaptiveAvgPool2d)],
)  # fmt: skip
def test_networks_pool_so_that_a_gpu_can_train_them(
    architecture: str, side: int, kind: type
) -> None:
    network = build(architecture, side, seed=0)
    assert type(network.avgpool) is kind
    names = [name for name, _ in network.named_children()]
    assert names.index("avgpool") == len(names) - 2, "before the head, as torchvision has it"
