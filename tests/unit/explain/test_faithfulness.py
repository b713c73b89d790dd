"""Checks of maps: constructed maps and masks with known answers, and their levels of chance."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import zoom

from thyro_core.explain.faithfulness import (
    BLUR_SHARE,
    Curve,
    area_share,
    baseline_image,
    border_energy,
    cascade_maps,
    deletion_curve,
    energy_inside,
    insertion_curve,
    pointing_hits,
    rank_correlations,
    region_iou,
)
from thyro_core.explain.gradcam import grad_cams
from thyro_core.tables.cam_columns import ANY_CASCADE, CASCADE, CASCADE_COLUMNS
from thyro_core.training.models import LAST_CONV, build, forward_layers


def median_correlation(maps_a: np.ndarray, maps_b: np.ndarray) -> float:
    """Of a network's maps and a copy's, over the pairs that can be compared; else NaN."""
    found = rank_correlations(maps_a, maps_b)
    return float(np.nanmedian(found)) if np.isfinite(found).any() else float("nan")


EMPTY = np.zeros((1, 4, 4), np.float32)
HALF = np.repeat([[True, False]], 8, axis=0).repeat(4, axis=1)[None]
"""A mask of 8 x 8 over the left half."""


pytestmark = pytest.mark.usefixtures("one_thread")


def one_cell(row: int, column: int, size: int = 4, value: float = 3.0) -> np.ndarray:
    cam = np.zeros((1, size, size), np.float32)
    cam[0, row, column] = value
    return cam


maps_of_3_by_5 = arrays(np.float32, (2, 3, 5), elements=st.floats(0, 100, width=32))


def test_energy_in_a_cell_counts_by_the_share_of_it_that_the_mask_covers():
    assert energy_inside(one_cell(1, 0), HALF).tolist() == [1]
    assert energy_inside(one_cell(1, 3), HALF).tolist() == [0]
    mask = np.zeros((1, 8, 8), bool)
    mask[0, 2, 2] = True  # a quarter of cell (1, 1), which is 2 x 2 pixels
    assert energy_inside(one_cell(1, 1), mask).tolist() == [0.25]
    assert energy_inside(one_cell(1, 2), mask).tolist() == [0]


def test_energies_weigh_by_value():
    cam = one_cell(0, 0, value=1) + one_cell(3, 3, value=4)
    assert energy_inside(cam, HALF).tolist() == [0.2]


def test_pixels_that_straddle_cells_are_shared():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, :, 1] = True
    # Three cells over four pixels: pixel 1 covers [1, 2) of [0, 4/3) and [4/3, 8/3).
    cams = np.zeros((3, 1, 3), np.float32)
    cams[[0, 1, 2], 0, [0, 1, 2]] = 1
    found = energy_inside(cams, np.repeat(mask, 3, axis=0))
    assert found == pytest.approx([0.25, 0.5, 0])


@given(arrays(bool, (2, 7, 11)))
def test_a_map_without_preference_gets_the_share_of_area(masks):
    flat = np.full((2, 3, 5), 0.7, np.float32)
    assert energy_inside(flat, masks) == pytest.approx(area_share(masks), abs=1e-12)


@given(maps_of_3_by_5, arrays(bool, (2, 6, 15)))
def test_inside_and_outside_make_the_whole_and_scale_does_not_matter(maps, masks):
    inside, outside = energy_inside(maps, masks), energy_inside(maps, ~masks)
    empty = maps.max(axis=(1, 2)) == 0
    assert np.isnan(inside[empty]).all()
    assert (inside + outside)[~empty] == pytest.approx(np.ones((~empty).sum()))
    np.testing.assert_allclose(energy_inside(maps * 8, masks), inside, rtol=1e-6)
    # Whole pixels in every cell: the same as a map enlarged without interpolation.
    large = zoom(maps.astype(float), (1, 2, 3), order=0, grid_mode=True, mode="nearest")
    for i in np.flatnonzero(~empty):
        assert inside[i] == pytest.approx(large[i][masks[i]].sum() / large[i].sum())


def test_every_map_meets_its_own_mask():
    maps = np.concatenate([one_cell(0, 0), one_cell(0, 3), EMPTY])
    masks = np.concatenate([HALF, HALF, HALF])
    np.testing.assert_array_equal(energy_inside(maps, masks), [1, 0, np.nan])
    np.testing.assert_array_equal(pointing_hits(maps, masks), [1, 0, np.nan])
    np.testing.assert_array_equal(energy_inside(maps[:2], ~masks[:2]), [0, 1])
    np.testing.assert_array_equal(pointing_hits(maps[:2], ~masks[:2]), [0, 1])


@pytest.mark.parametrize("check", [energy_inside, pointing_hits])
def test_one_mask_for_several_maps_is_a_mistake(check):
    with pytest.raises(ValueError, match=r"one mask a map, found maps \(3, 4, 4\) and masks \(1, "):
        check(np.ones((3, 4, 4), np.float32), HALF)


def test_the_area_is_the_level_of_chance():
    mask = np.zeros((2, 10, 10), bool)
    mask[0, :5, :4] = True
    assert area_share(mask).tolist() == [0.2, 0]


def test_the_frame_s_share_by_hand():
    assert border_energy(one_cell(0, 2), 0.25).tolist() == [1]
    assert border_energy(one_cell(1, 2), 0.25).tolist() == [0]
    assert border_energy(one_cell(1, 2), 0.5).tolist() == [1]
    assert border_energy(one_cell(0, 0), 0).tolist() == [0]
    # A frame of half a cell: an edge cell lies half in it, a corner cell three quarters.
    assert border_energy(one_cell(0, 2), 0.125).tolist() == [0.5]
    assert border_energy(one_cell(3, 3), 0.125).tolist() == [0.75]
    assert np.isnan(border_energy(EMPTY, 0.1)).all()


@given(st.floats(0, 0.5), st.integers(1, 9), st.integers(1, 9))
def test_a_map_without_preference_has_the_frame_s_area_at_its_border(width, height, length):
    found = border_energy(np.ones((1, height, length), np.float32), width)
    assert found[0] == pytest.approx(1 - (1 - 2 * width) ** 2, abs=1e-9)


@pytest.mark.parametrize("width", [-0.1, 0.51, np.nan])
def test_a_frame_wider_than_the_image_is_refused(width):
    with pytest.raises(ValueError, match=r"frame of 0 to 0\.5"):
        border_energy(EMPTY, width)


def test_the_peak_points_at_the_centre_of_its_cell():
    mask = np.zeros((1, 12, 12), bool)
    mask[0, 4, 7] = True  # cell (1, 2) covers rows 3 to 5 and columns 6 to 8
    assert pointing_hits(one_cell(1, 2), mask).tolist() == [1]
    assert pointing_hits(one_cell(2, 1), mask).tolist() == [0]
    mask[:] = ~mask
    assert pointing_hits(one_cell(1, 2), mask).tolist() == [0]


def test_the_highest_cell_points_and_no_other():
    cam = one_cell(0, 0, value=2) + one_cell(0, 3, value=1.9)
    assert pointing_hits(cam, HALF).tolist() == [1]


def test_equal_peaks_share_the_hit():
    cam = one_cell(0, 0) + one_cell(2, 1) + one_cell(3, 3)
    assert pointing_hits(cam, HALF) == pytest.approx([2 / 3])
    assert pointing_hits(np.ones((1, 4, 4), np.float32), HALF).tolist() == [0.5]


def test_iou_of_a_region_at_the_mask_s_own_size():
    cam = np.zeros((8, 8), np.float32)
    cam[2:6, 2:6] = 1
    cam[2, 2] = 0.45
    mask = cam > 0
    assert region_iou(cam, mask, 0.4) == 1
    assert region_iou(cam, mask, 0.5) == 15 / 16
    shifted = np.roll(mask, 2, axis=1)
    assert region_iou(cam, shifted, 0.4) == 8 / 24
    assert region_iou(cam, np.roll(mask, 4, axis=1) & ~mask, 0.4) == 0
    assert region_iou(cam * 1e-3, shifted, 0.4) == 8 / 24


def test_iou_enlarges_the_map_first():
    """Bilinear: a tent around the cell's centre, that reaches to its neighbours' centres."""
    mask = np.zeros((40, 40), bool)
    mask[10:20, 10:20] = True
    tent = np.clip(1 - np.abs(np.arange(40) + 0.5 - 15) / 10, 0, None)
    region = np.outer(tent, tent) > 0.3 * tent.max() ** 2
    assert (region & ~mask).any()
    expected = (region & mask).sum() / (region | mask).sum()
    assert region_iou(one_cell(1, 1)[0], mask, 0.3) == expected


def test_an_empty_map_or_mask_has_no_iou():
    assert np.isnan(region_iou(EMPTY[0], HALF[0], 0.5))
    assert np.isnan(region_iou(one_cell(1, 1)[0], ~(HALF[0] | True), 0.5))


@pytest.fixture(scope="module")
def trained():
    return build("resnet18", 64, seed=3).eval()


def images_of(side: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("architecture", "side"),
    [
        ("resnet18", 64),
        pytest.param("alexnet", 64, marks=pytest.mark.slow),
        pytest.param("inception_v3", 75, marks=pytest.mark.slow),
        pytest.param("vgg16", 32, marks=pytest.mark.slow),
    ],
)
def test_the_cascade_goes_from_the_head_to_the_whole_network(architecture, side):
    """Against plain networks whose state is mixed by name: trained below a stage, fresh above."""
    model, fresh = (build(architecture, side, seed).eval() for seed in (3, 4))
    names = [name for name, _ in forward_layers(model)]
    images = images_of(side)
    stages = cascade_maps(model, architecture, images, 4)
    assert len(stages) == len(CASCADE[architecture]) == len(CASCADE_COLUMNS)
    assert names.index(CASCADE[architecture][0]) > names.index("avgpool")
    assert CASCADE[architecture][-1] == names[0]
    mixed = build(architecture, side, 3).eval()
    for first, maps in zip(CASCADE[architecture], stages, strict=True):
        above = tuple(f"{name}." for name in names[names.index(first) :])
        state = {k: v for k, v in fresh.state_dict().items() if k.startswith(above)}
        mixed.load_state_dict(state, strict=False)
        expected = grad_cams(mixed, architecture, images)[1].numpy()
        np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-6 * expected.max())


def test_the_cascade_of_another_network_goes_from_its_head_to_all_of_it():
    """Against plain networks whose state is mixed by name, part by part."""
    name, side = "mobilenet_v3_large", 64
    model, fresh = (build(name, side, seed).eval() for seed in (3, 4))
    images = images_of(side)
    stages = cascade_maps(model, name, images, 4)
    assert len(stages) == len(ANY_CASCADE) == len(CASCADE_COLUMNS)
    # 17 blocks: the last one, the last 6, the last 12, all.
    firsts = [(), (16,), range(11, 17), range(5, 17), range(17)]
    for places, maps in zip(firsts, stages, strict=True):
        above = ("classifier.", *(f"features.{place}." for place in places))
        mixed = build(name, side, 3).eval()
        state = {k: v for k, v in fresh.state_dict().items() if k.startswith(above)}
        mixed.load_state_dict(state, strict=False)
        expected = grad_cams(mixed, name, images)[1].numpy()
        np.testing.assert_array_equal(maps, expected)
    assert all(
        torch.equal(value, build(name, side, 3).state_dict()[key])
        for key, value in list(model.state_dict().items())[::40]
    )


def test_no_stage_redraws_the_layer_whose_map_is_shown_alone():
    """Its redraw is bound to pass; it comes with the head, and after a stage of the head alone."""
    for architecture, stages in CASCADE.items():
        assert not stages[0].startswith(LAST_CONV[architecture])
        assert stages[1].startswith(LAST_CONV[architecture])


def test_the_cascade_leaves_the_network_and_torch_s_generators(trained):
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    state = torch.random.get_rng_state()
    one, same, other = (
        cascade_maps(trained, "resnet18", images_of(64), seed)[0] for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_maps_that_follow_the_head_change_with_it_and_edges_do_not():
    """On side 160 (5 x 5 cells): a head that all cells feed alike, against an untrained one."""
    model = build("resnet18", 160, seed=3).eval()
    images = images_of(160, 3)
    with torch.no_grad():
        model.fc.weight.abs_()
    maps = grad_cams(model, "resnet18", images)[1][:, 1].numpy()
    stages = cascade_maps(model, "resnet18", images, 5)
    assert median_correlation(maps, maps.copy()) == pytest.approx(1)
    for stage in stages:
        found = [median_correlation(maps, stage[:, target]) for target in (0, 1)]
        assert not np.nanmax([*found, -1]) > 0.9


def test_rank_correlation_by_hand():
    a = np.array([[[1, 2], [3, 4]]] * 5, np.float32)
    b = np.array(
        [
            [[10, 20], [30, 99]],
            [[4, 3], [2, 1]],
            [[1, 3], [2, 4]],
            [[0, 0], [0, 0]],
            [[0, 0], [0, 7]],
        ],
        np.float32,
    )
    # 1 - 6 sum d^2 / (n (n^2 - 1)); the last has ties: ranks 2, 2, 2, 4.
    expected = [1, -1, 0.8, np.nan, 3 / np.sqrt(15)]
    np.testing.assert_allclose(rank_correlations(a, b), expected)
    np.testing.assert_allclose(rank_correlations(b[:3], a[:3]), expected[:3])


GRADIENT = np.arange(16, dtype=np.float32).reshape(4, 4)
"""The last pixel matters most."""


def only_last_row(images: np.ndarray) -> np.ndarray:
    """A network that sees the last row alone: its sum as a share of the whole image's own."""
    return images[:, -1].sum(axis=1) / GRADIENT[-1].sum()


def test_deletion_by_hand():
    curve = deletion_curve(only_last_row, GRADIENT, GRADIENT, "mean", steps=4)
    # The last row goes first, and has 7.5 for its 12 to 15.
    np.testing.assert_allclose(curve.shares, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve.scores, [1, 30 / 54, 30 / 54, 30 / 54, 30 / 54], rtol=1e-6)
    assert curve.auc == pytest.approx(0.25 * (1 + 30 / 54) / 2 + 0.75 * 30 / 54)


def test_insertion_by_hand():
    curve = insertion_curve(only_last_row, GRADIENT, GRADIENT, "mean", steps=16)
    assert curve.shares.shape == (17,)
    np.testing.assert_allclose(
        curve.scores[:5] * 54, [30, 37.5, 44, 49.5, 54], rtol=1e-6
    )  # 15, 14, 13, 12 for 7.5 each
    np.testing.assert_allclose(curve.scores[5:], 1, rtol=1e-6)


def test_a_wrong_map_is_worse_than_the_right_one_and_a_random_one_between():
    rng = np.random.default_rng(0)
    random = rng.permutation(16).astype(np.float32).reshape(4, 4)
    deleted, inserted = (
        [curve(only_last_row, GRADIENT, cam, "mean").auc for cam in (GRADIENT, random, -GRADIENT)]
        for curve in (deletion_curve, insertion_curve)
    )
    assert deleted == sorted(deleted)
    assert inserted == sorted(inserted, reverse=True)
    assert deleted[0] < deleted[1] < deleted[2]
    assert inserted[0] > inserted[1] > inserted[2]


def test_all_images_of_a_curve_go_to_the_network_at_once_and_in_float32():
    seen = []

    def scores(images: np.ndarray) -> np.ndarray:
        seen.append((images.shape, images.dtype))
        return np.zeros(len(images))

    deletion_curve(scores, np.ones((6, 4), np.float32), one_cell(0, 0, 2)[0], steps=3)
    assert seen == [((4, 6, 4), np.float32)]


def test_a_coarse_map_is_enlarged_and_its_ends_are_the_image_and_the_baseline():
    image = np.random.default_rng(1).random((8, 8)).astype(np.float32)
    kept = []

    def scores(images: np.ndarray) -> np.ndarray:
        kept[:] = images
        return np.zeros(len(images))

    deletion_curve(scores, image, one_cell(0, 0, 2)[0], "mean", steps=4)
    np.testing.assert_array_equal(kept[0], image)
    np.testing.assert_allclose(kept[4], image.mean())
    changed = kept[1] != image
    assert changed.sum() == 16
    assert changed[:3, :3].all()
    assert not changed[5:, :].any()
    insertion_curve(scores, image, one_cell(0, 0, 2)[0], "blur", steps=4)
    np.testing.assert_array_equal(kept[0], baseline_image(image, "blur"))
    np.testing.assert_array_equal(kept[4], image)


def test_the_blurred_baseline_is_a_gaussian_of_the_declared_width():
    spike = np.zeros((201, 101), np.float32)
    spike[100, 50] = 1
    blurred = baseline_image(spike, "blur")
    sigma = BLUR_SHARE * 101
    assert blurred.dtype == np.float32
    assert blurred.sum() == pytest.approx(1, rel=1e-3)
    rows = np.arange(201) - 100
    assert np.sqrt((blurred.sum(axis=1) * rows**2).sum()) == pytest.approx(sigma, rel=0.02)
    np.testing.assert_allclose(baseline_image(np.full((20, 20), 7, np.float32), "blur"), 7)


def test_the_mean_baseline_is_flat():
    image = np.array([[0, 1], [2, 5]], np.float32)
    np.testing.assert_array_equal(baseline_image(image, "mean"), np.full((2, 2), 2, np.float32))


@given(arrays(np.float64, 6, elements=st.floats(0, 1)))
def test_areas_stay_within_the_scores(scores):
    curve = Curve(np.linspace(0, 1, 6), scores)
    assert scores.min() - 1e-12 <= curve.auc <= scores.max() + 1e-12
