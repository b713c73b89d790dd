import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thyro_core.explain.regions import DEFAULT_SHARE, SHARES, hot_spot, upsample

small_maps = hnp.arrays(
    np.float32,
    hnp.array_shapes(min_dims=2, max_dims=2, max_side=7),
    elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]),
)


def bilinear(cam, height, width):
    """Each target pixel's centre looked up between the centres of the four nearest map pixels."""
    rows, columns = cam.shape
    result = np.empty((height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * rows / height - 0.5, 0), rows - 1)
            x = min(max((j + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            down, across = y - top, x - left
            upper = cam[top, left] * (1 - across) + cam[top, right] * across
            lower = cam[bottom, left] * (1 - across) + cam[bottom, right] * across
            result[i, j] = upper * (1 - down) + lower * down
    return result


def flooded(mask, start):
    """All True pixels that a king's moves over True pixels reach from `start`."""
    found, edge = {start}, [start]
    while edge:
        i, j = edge.pop()
        near = {(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1)} - found
        new = [(a, b) for a, b in near if (a, b) in mask]
        found.update(new)
        edge += new
    return found


def largest(cam, share):
    mask = {(int(i), int(j)) for i, j in np.argwhere(cam > share * cam.max())}
    parts = []
    for start in sorted(mask):
        if not any(start in part for part in parts):
            parts.append(flooded(mask, start))
    result = np.zeros(cam.shape, dtype=bool)
    if cam.max() > 0:
        result[tuple(np.array(sorted(max(parts, key=len))).T)] = True
    return result


class TestUpsampled:
    @pytest.mark.parametrize(
        ("shape", "size"), [((7, 7), (64, 64)), ((4, 6), (30, 17)), ((3, 2), (3, 2))]
    )
    def test_is_bilinear_between_pixel_centres(self, shape, size):
        cam = np.random.default_rng(0).random(shape, dtype=np.float32)
        found = upsample(cam, *size)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, bilinear(cam, *size), atol=1e-6)

    def test_keeps_the_scale_of_tiny_and_huge_maps(self):
        cam = np.random.default_rng(1).random((5, 5), dtype=np.float32)
        for scale in (2.0**-60, 2.0**60):
            found = upsample(cam * np.float32(scale), 40, 40) / np.float32(scale)
            np.testing.assert_allclose(found, upsample(cam, 40, 40), rtol=1e-6)

    def test_one_pixel_fills_the_image(self):
        assert (upsample(np.full((1, 1), 3.5, dtype=np.float32), 4, 9) == 3.5).all()

    def test_reads_a_map_that_is_not_contiguous(self):
        cam = np.random.default_rng(2).random((6, 4), dtype=np.float32)
        np.testing.assert_array_equal(upsample(cam.T, 9, 9), upsample(cam.T.copy(), 9, 9))

    @pytest.mark.parametrize(
        ("shape", "size"), [((2, 3, 3), (8, 8)), ((0, 3), (8, 8)), ((3, 3), (0, 8))]
    )
    def test_refuses_what_is_no_map_or_no_size(self, shape, size):
        with pytest.raises(ValueError, match="at least one pixel"):
            upsample(np.zeros(shape, dtype=np.float32), *size)


class TestHighlighted:
    def test_takes_the_largest_part_not_the_one_with_the_peak(self):
        cam = np.zeros((6, 8), dtype=np.float32)
        cam[0, 0] = 1.0
        cam[3:5, 3:6] = 0.625
        expected = np.zeros((6, 8), dtype=bool)
        expected[3:5, 3:6] = True
        np.testing.assert_array_equal(hot_spot(cam, 0.5), expected)
        assert hot_spot(cam, 0.625).sum() == 1

    def test_the_share_itself_is_not_above_it(self):
        cam = np.array([[1.0, 0.5, 0.25]], dtype=np.float32)
        assert hot_spot(cam, 0.5).tolist() == [[True, False, False]]
        assert hot_spot(cam, 0.49).tolist() == [[True, True, False]]

    def test_corners_connect(self):
        assert hot_spot(np.eye(4, dtype=np.float32), 0.5).sum() == 4

    def test_of_equals_the_first_in_reading_order(self):
        cam = np.zeros((3, 9), dtype=np.float32)
        cam[1:, 0:2] = 1
        cam[0:2, 5:7] = 1
        assert np.argwhere(hot_spot(cam, 0.5))[:, 1].tolist() == [5, 6, 5, 6]

    def test_an_empty_map_has_no_region(self):
        for share in SHARES:
            region = hot_spot(np.zeros((4, 5), dtype=np.float32), share)
            assert region.dtype == bool
            assert region.shape == (4, 5)
            assert not region.any()
        assert not hot_spot(np.full((2, 2), -1, dtype=np.float32), 0.5).any()

    def test_a_denormal_map_is_cut_like_any_other(self):
        least = np.finfo(np.float32).smallest_subnormal
        cam = np.array([[3, 2, 1, 0]], dtype=np.float32) * least
        assert hot_spot(cam, 0.5).tolist() == [[True, True, False, False]]

    @given(small_maps, st.sampled_from([0.0, *SHARES]))
    def test_is_what_flooding_by_hand_finds(self, cam, share):
        np.testing.assert_array_equal(hot_spot(cam, share), largest(cam, share))

    @given(small_maps, st.sampled_from(SHARES), st.integers(-100, 100))
    def test_scale_does_not_matter(self, cam, share, power):
        scaled = cam * np.float32(2.0**power)
        np.testing.assert_array_equal(hot_spot(scaled, share), hot_spot(cam, share))

    @pytest.mark.parametrize(
        ("cam", "share"),
        [
            (np.array([[1, np.nan]]), 0.5),
            (np.array([[1, np.inf]]), 0.5),
            (np.ones(3), 0.5),
            (np.ones((0, 3)), 0.5),
            (np.ones((2, 2)), 1.0),
            (np.ones((2, 2)), -0.1),
            (np.ones((2, 2)), np.nan),
        ],
    )
    def test_refuses_what_cannot_be_cut(self, cam, share):
        with pytest.raises(ValueError, match="expected a finite map"):
            hot_spot(cam.astype(np.float32), share)


def test_the_declared_share_is_one_of_those_reported():
    assert SHARES == (0.3, 0.4, 0.5, 0.6, 0.7)
    assert DEFAULT_SHARE == 0.5
