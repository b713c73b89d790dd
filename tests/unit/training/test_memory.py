"""How many jobs share a GPU or a node: the estimates are on the safe side."""

import pytest
import torch

from thyro_core.config import ARCHITECTURES, StudyConfig
from thyro_core.training.memory import job_cpu_bytes, job_gpu_bytes, jobs_that_fit
from thyro_core.training.models import build

GIB = 2**30


def need(*architectures, batch_size: int = 32, image_size: int = 224, images: int = 508) -> int:
    config = StudyConfig(architectures=architectures, batch_size=batch_size, image_size=image_size)
    return job_gpu_bytes(config, images)


def test_a_large_gpu_takes_all_ten_jobs_and_a_small_one_fewer() -> None:
    assert jobs_that_fit(141 * 10**9, need("resnet18")) >= 10
    assert jobs_that_fit(141 * 10**9, need(*ARCHITECTURES)) >= 10
    assert jobs_that_fit(24 * GIB, need("resnet18")) in range(4, 10)
    assert jobs_that_fit(24 * GIB, need(*ARCHITECTURES)) in (2, 3)


@pytest.mark.parametrize(
    ("architecture", "measured"),
    [
        # The most that a process held in steps of 32 images, in fp32 and in bf16 [GB].
        ("resnet18", (1.74, 1.25)),
        ("alexnet", (1.44, 1.65)),
        ("vgg16", (6.12, 4.82)),
        ("inception_v3", (4.72, 2.92)),
    ],
)
def test_a_job_without_a_gpu_takes_no_more_than_the_estimate_and_not_much_less(
    architecture, measured
) -> None:
    estimate = job_cpu_bytes(StudyConfig(architectures=(architecture,))) / 1e9
    assert max(measured) < estimate < 1.35 * max(measured)


def test_without_a_gpu_the_largest_network_and_the_batch_count_too() -> None:
    every, vgg = (
        job_cpu_bytes(StudyConfig(architectures=of)) for of in (ARCHITECTURES, ("vgg16",))
    )
    assert every == vgg
    assert job_cpu_bytes(StudyConfig(architectures=("vgg16",), batch_size=8)) < 0.6 * vgg
    assert job_cpu_bytes(StudyConfig(architectures=("vgg16",), image_size=64)) < 0.6 * vgg


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
    parameters = 28 * sum(p.numel() for p in network.parameters())
    estimate = need(architecture, batch_size=32, images=0) - 1.5e9 - parameters
    assert estimate / 32 == pytest.approx(2 * found, rel=0.04)
