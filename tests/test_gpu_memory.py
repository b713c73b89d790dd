"""How many jobs share a GPU: the estimate is on the safe side of what torch keeps."""

import pytest
import torch

from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.gpu_memory import job_gpu_bytes, jobs_that_fit
from thyro_core.models import build

GIB = 2**30


def need(*architectures, batch_size: int = 32, image_size: int = 224, images: int = 508) -> int:
    config = StudyConfig(architectures=architectures, batch_size=batch_size, image_size=image_size)
    return job_gpu_bytes(config, images)


def test_a_large_gpu_takes_all_ten_jobs_and_a_small_one_fewer() -> None:
    assert jobs_that_fit(141 * 10**9, need("resnet18")) >= 10
    assert jobs_that_fit(141 * 10**9, need(*ARCHITECTURES)) >= 10
    assert jobs_that_fit(24 * GIB, need("resnet18")) in range(4, 10)
    assert jobs_that_fit(24 * GIB, need(*ARCHITECTURES)) in (2, 3)


def test_what_is_unknown_or_too_small_takes_one() -> None:
    assert jobs_that_fit(None, need("resnet18")) == 1
    assert jobs_that_fit(2 * GIB, need("vgg16")) == 1


def test_a_job_is_as_large_as_its_largest_network_and_batch() -> None:
    assert need("resnet18", "vgg16") == need("vgg16") > need("resnet18")
    assert need("resnet18", batch_size=64) > 1.3 * need("resnet18")
    assert need("vgg16", image_size=448) > 2 * need("vgg16")
    more = need("resnet18", images=1_000_508) - need("resnet18")
    assert more == 1_000_000 * 224**2


@pytest.mark.parametrize(
    ("architecture", "side"), [("resnet18", 224), ("alexnet", 224), ("inception_v3", 299)]
)
def test_the_estimate_holds_twice_what_torch_keeps_for_the_backward_pass(
    architecture, side
) -> None:
    network = build(architecture, side, seed=0).train()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    images = 2
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.zeros(images, 3, side, side))
    found = sum(s.nbytes() for place, s in kept.items() if place not in weights) / images
    parameters = 16 * sum(p.numel() for p in network.parameters())
    estimate = need(architecture, batch_size=32, images=0) - 1.5e9 - parameters
    assert estimate / 32 == pytest.approx(2 * found, rel=0.04)
