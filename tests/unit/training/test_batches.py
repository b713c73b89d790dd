from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.support.plain_loop import torchvision_image
from thyro_core.config import StudyConfig
from thyro_core.training.batches import (
    Examples,
    _turned_grid,
    augment,
    batch_bounds,
    draw_epoch,
    normalise,
    stream_seed,
)


@given(n=st.integers(2, 2000), size=st.integers(4, 128))
def test_batches_cover_everything_once_and_none_is_larger_than_asked_or_of_one_image(
    n: int, size: int
) -> None:
    bounds = batch_bounds(n, size)
    assert bounds[0][0] == 0
    assert bounds[-1][1] == n
    assert all(before[1] == after[0] for before, after in pairwise(bounds))
    sizes = [stop - start for start, stop in bounds]
    assert max(sizes) <= size
    assert min(sizes) >= 2
    assert max(sizes) - min(sizes) <= 1
    assert len(bounds) == -(-n // size)


def test_an_epochs_draws_repeat_and_differ_between_epochs_and_seeds() -> None:
    config = StudyConfig(flip_vertical=0.5)
    first = draw_epoch(50, 0, 7, config)
    again = draw_epoch(50, 0, 7, config)
    assert torch.equal(first.order, again.order)
    assert torch.equal(first.angle, again.angle)
    assert torch.equal(first.mirror, again.mirror)
    for other in (draw_epoch(50, 1, 7, config), draw_epoch(50, 0, 8, config)):
        assert not torch.equal(first.order, other.order)
        assert not torch.equal(first.angle, other.angle)


def test_draws_are_distributed_as_the_config_says() -> None:
    config = StudyConfig(rotation=20, flip_horizontal=0.25, flip_vertical=0.0)
    draws = draw_epoch(20_000, 0, 0, config)
    assert sorted(draws.order.tolist()) == list(range(20_000))
    degrees = torch.rad2deg(draws.angle)
    assert float(degrees.abs().max()) <= 20
    assert float(degrees.mean()) == pytest.approx(0, abs=0.5)
    assert float(degrees.std()) == pytest.approx(40 / 12**0.5, rel=0.03)
    flipped = (draws.mirror < 0).double().mean(dim=0)
    assert float(flipped[0]) == pytest.approx(0.25, abs=0.015)
    assert float(flipped[1]) == 0


def test_drawing_leaves_torchs_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    draw_epoch(10, 0, 0, StudyConfig())
    assert torch.equal(torch.random.get_rng_state(), before)


@given(st.lists(st.integers(0, 2**31), min_size=1, max_size=4))
def test_stream_seeds_are_stable_non_negative_and_distinct(keys: list[int]) -> None:
    seed = stream_seed(*keys)
    assert 0 <= seed < 2**63
    assert seed == stream_seed(*keys)
    assert seed != stream_seed(*keys[:-1], keys[-1] + 1)


@pytest.mark.parametrize("mirror", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("degrees", [-30.0, 0.0, 7.5])
def test_augmentation_equals_torchvisions_flip_then_rotation(
    degrees: float, mirror: tuple[int, int]
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    angle = torch.deg2rad(torch.tensor([degrees]))
    flips = torch.tensor([mirror], dtype=torch.float32)
    grey = torch.from_numpy(pixels)[None, None].float() / 255
    found = normalise(augment(grey, angle, flips))[0]
    expected = torchvision_image(pixels, angle[0], flips[0])
    assert torch.allclose(found, expected, atol=2e-4)


@given(st.integers(0, 2**31), st.sampled_from([1, 33, 64, 299]))
def test_the_grid_is_that_of_affine_grid(seed: int, side: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    angle = (torch.rand(3, generator=draw) - 0.5) * 6
    flips = torch.where(torch.rand((3, 2), generator=draw) < 0.5, -1.0, 1.0)
    cos, sin = torch.cos(angle), torch.sin(angle)
    rows = [torch.stack([cos, -sin, 0 * cos], 1), torch.stack([sin, cos, 0 * cos], 1)]
    matrix = torch.stack([row * flips[:, k, None] for k, row in enumerate(rows)], 1)
    wanted = torch.nn.functional.affine_grid(matrix, [3, 1, side, side], align_corners=False)
    torch.testing.assert_close(_turned_grid(angle, flips, side), wanted, atol=3e-7, rtol=0)


def test_without_augmentation_the_pixels_stay_as_they_are() -> None:
    grey = torch.rand(3, 1, 17, 17)
    same = augment(grey, torch.zeros(3), torch.ones(3, 2))
    assert torch.allclose(same, grey, atol=1e-5)


def test_normalise_gives_imagenets_channels_last() -> None:
    images = normalise(torch.full((2, 1, 8, 8), 0.5))
    assert images.is_contiguous(memory_format=torch.channels_last)
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert images[0, :, 0, 0].tolist() == pytest.approx(expected)


def test_examples_gather_their_own_rows_from_array_and_tensor_alike() -> None:
    pixels = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    rows = np.array([4, 0, 2])
    labels = torch.tensor([1, 0, 1])
    positions = torch.tensor([2, 0])
    on_cpu = Examples(pixels, rows, labels).grey(positions)
    in_memory = Examples(torch.from_numpy(pixels), rows, labels).grey(positions)
    assert torch.equal(on_cpu, in_memory)
    assert torch.equal(on_cpu[:, 0], torch.from_numpy(pixels[[2, 4]]).float() / 255)
    assert len(Examples(pixels, rows, labels)) == 3
