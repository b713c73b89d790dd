import math
from itertools import product

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thyro_core.explain.features import (
    feature_rows,
    features_table,
    outline_aspects,
    region_features,
)
from thyro_core.explain.regions import SHARES, hot_spot, upsample
from thyro_core.tables.cam_columns import FEATURES
from thyro_core.tables.schemas import TABLES

SIDE = 224
SHAPE = [name for name, family in FEATURES.items() if family == "shape"]
OTHERS = [name for name, family in FEATURES.items() if family != "shape"]
SCHEMA = TABLES["cam_features"].schema
KEYS = {"study_id": "s", "split": 3, "architecture": "alexnet"}


def drawn(seed, share, coarseness):
    """A ragged region of at least one pixel, and grey levels in steps of `coarseness`."""
    generator = np.random.default_rng(seed)
    region = generator.random((7, 9)) < share
    region[generator.integers(7), generator.integers(9)] = True
    return region, (generator.integers(0, 256, (7, 9)) // coarseness * coarseness).astype(np.uint8)


small_images = st.builds(
    drawn, st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3, 0.6, 0.9, 1.0]),
    st.sampled_from([1, 30, 256]),
)  # fmt: skip
few = settings(max_examples=20, deadline=None)


def ellipse(half_width, half_height, turned=0.0, side=SIDE):
    """Turned counterclockwise as seen on the screen, by `turned` degrees."""
    down, right = np.mgrid[:side, :side] - (side - 1) / 2
    angle = math.radians(turned)
    along = right * math.cos(angle) - down * math.sin(angle)
    across = right * math.sin(angle) + down * math.cos(angle)
    return (along / half_width) ** 2 + (across / half_height) ** 2 <= 1


def rectangle(height, width, top=20, left=30, side=SIDE):
    region = np.zeros((side, side), dtype=bool)
    region[top : top + height, left : left + width] = True
    return region


def noise(shape=(SIDE, SIDE), seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def shape(region):
    return region_features(region, np.zeros(region.shape, dtype=np.uint8))


def same(expected):
    return pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)


def glcm_by_hand(region, grey):
    """The five features by counting pairs in Python, averaged over the directions with pairs."""
    bins = grey.astype(int) // 8
    height, width = region.shape
    found = []
    for distance, (down, right) in product((1, 2), ((0, 1), (1, 0), (1, 1), (1, -1))):
        pairs = []
        for i, j in product(range(height), range(width)):
            k, m = i + distance * down, j + distance * right
            if k < height and 0 <= m < width and region[i, j] and region[k, m]:
                pairs += [(bins[i, j], bins[k, m]), (bins[k, m], bins[i, j])]
        if pairs:
            a, b = np.array(pairs).T
            share = np.unique(pairs, axis=0, return_counts=True)[1] / len(pairs)
            spread = a.std() * b.std()
            found.append(
                {
                    "glcm_contrast": ((a - b) ** 2).mean(),
                    "glcm_dissimilarity": np.abs(a - b).mean(),
                    "glcm_homogeneity": (1 / (1 + (a - b) ** 2)).mean(),
                    "glcm_energy": math.sqrt((share**2).sum()),
                    "glcm_correlation": (
                        ((a - a.mean()) * (b - b.mean())).mean() / spread if spread else math.nan
                    ),
                }
            )
    names = [name for name, family in FEATURES.items() if family == "texture"]
    values = {name: [one[name] for one in found if not math.isnan(one[name])] for name in names}
    return {name: float(np.mean(of)) if of else math.nan for name, of in values.items()}


class TestShape:
    @pytest.mark.parametrize(("height", "width"), [(60, 20), (20, 60), (41, 41), (3, 90)])
    def test_rectangle(self, height, width):
        found = shape(rectangle(height, width))
        long, short = max(height, width), min(height, width)
        assert found["area"] == height * width / SIDE**2
        assert found["extent"] == 1
        assert found["solidity"] == pytest.approx(1)
        assert found["aspect_ratio"] == height / width
        assert found["compactness"] == pytest.approx(
            6 * height * width / (math.pi * (height**2 + width**2))
        )
        # Crofton's estimate with four directions is worst along the axes: 5.2 % too short.
        assert found["perimeter"] == pytest.approx(2 * (height + width) / SIDE, rel=0.06)
        assert found["eccentricity"] == pytest.approx(math.sqrt(1 - short**2 / long**2), abs=2e-3)

    def test_a_square_is_round_but_not_a_disc(self):
        found = shape(rectangle(80, 80))
        assert found["circularity"] == pytest.approx(math.pi / 4, rel=0.13)
        assert found["compactness"] == pytest.approx(3 / math.pi)
        assert found["eccentricity"] == pytest.approx(0, abs=1e-6)
        assert math.isnan(found["orientation"])

    @pytest.mark.parametrize("radius", [12, 30, 75])
    def test_disc(self, radius):
        found = shape(ellipse(radius, radius))
        assert found["area"] == pytest.approx(math.pi * (radius / SIDE) ** 2, rel=0.02)
        assert found["perimeter"] == pytest.approx(2 * math.pi * radius / SIDE, rel=0.015)
        assert found["circularity"] == pytest.approx(1, abs=0.025)
        assert found["compactness"] == pytest.approx(1, abs=0.003)
        assert found["eccentricity"] == pytest.approx(0, abs=0.05)
        assert found["extent"] == pytest.approx(math.pi / 4, rel=0.02)
        assert found["solidity"] == pytest.approx(1, abs=0.04)
        assert found["aspect_ratio"] == 1
        assert math.isnan(found["orientation"])

    @pytest.mark.parametrize("turned", [0, 20, 30, 45, 70, 90])
    def test_ellipse_turned(self, turned):
        a, b = 60, 25
        found = shape(ellipse(a, b, turned))
        assert found["area"] == pytest.approx(math.pi * a * b / SIDE**2, rel=0.01)
        assert found["eccentricity"] == pytest.approx(math.sqrt(1 - b**2 / a**2), abs=2e-3)
        assert found["compactness"] == pytest.approx(2 * a * b / (a**2 + b**2), rel=0.01)
        assert found["orientation"] == pytest.approx(math.radians(turned), abs=0.01)
        around = math.pi * (3 * (a + b) - math.sqrt((3 * a + b) * (a + 3 * b)))  # Ramanujan
        assert found["perimeter"] == pytest.approx(around / SIDE, rel=0.03)
        assert found["circularity"] == pytest.approx(4 * math.pi**2 * a * b / around**2, rel=0.06)
        tall = math.hypot(a * math.sin(math.radians(turned)), b * math.cos(math.radians(turned)))
        wide = math.hypot(a * math.cos(math.radians(turned)), b * math.sin(math.radians(turned)))
        assert found["aspect_ratio"] == pytest.approx(tall / wide, rel=0.04)
        assert found["extent"] == pytest.approx(math.pi * a * b / (4 * tall * wide), rel=0.04)

    def test_upright_is_a_right_angle_and_taller_than_wide(self):
        found = shape(rectangle(60, 20))
        assert found["orientation"] == pytest.approx(math.pi / 2)
        assert found["aspect_ratio"] == 3
        assert shape(rectangle(20, 60))["orientation"] == pytest.approx(0, abs=1e-12)

    def test_just_off_the_horizontal_nothing_jumps(self):
        one, other = (shape(ellipse(60, 25, turned))["orientation"] for turned in (2, -2))
        assert one == pytest.approx(other, abs=1e-9)
        assert one == pytest.approx(math.radians(2), abs=0.01)

    def test_an_l_is_neither_solid_nor_round(self):
        region = rectangle(80, 80)
        region[20:60, 70:110] = False
        found = shape(region)
        assert found["solidity"] == pytest.approx((3 / 4) / (7 / 8), rel=0.01)
        assert found["extent"] == 3 / 4

    def test_compactness_does_not_see_a_rough_edge_and_circularity_does(self):
        region = ellipse(60, 60)
        rough = region & ~((np.hypot(*(np.mgrid[:SIDE, :SIDE] - 111.5)) > 57) & (noise() < 100))
        smooth, ragged = shape(region), shape(rough)
        assert ragged["compactness"] == pytest.approx(smooth["compactness"], abs=0.01)
        assert ragged["circularity"] < 0.6 * smooth["circularity"]

    def test_lengths_are_shares_of_the_square(self):
        small = shape(ellipse(20, 12, 30, side=112))
        large = shape(ellipse(40, 24, 30, side=224))
        for name in SHAPE:
            assert large[name] == pytest.approx(small[name], rel=0.06), name

    def test_the_images_edge_is_outline(self):
        inside = shape(rectangle(50, 60, top=20, left=30))
        corner = shape(rectangle(50, 60, top=0, left=0))
        assert corner == pytest.approx(inside, nan_ok=True)


class TestIntensity:
    def test_contrast_is_to_a_ring_of_a_twentieth_of_the_side(self):
        grey = np.full((SIDE, SIDE), 10, dtype=np.uint8)
        grey[ellipse(41, 41)] = 50
        grey[ellipse(30, 30)] = 200
        found = region_features(ellipse(30, 30), grey)
        assert found["grey_mean"] == 200
        assert found["grey_sd"] == 0
        # The ring ends 11.2 pixels outside, where the grey level has been 10 for 0.2 pixels.
        assert 200 - 50 <= found["grey_contrast"] <= 200 - 48

    def test_the_ring_is_what_lies_near_and_outside(self):
        region = np.zeros((60, 60), dtype=bool)
        region[10:13, 0:4] = region[30, 20] = True
        grey = noise((60, 60))
        points = np.argwhere(region)
        near = [
            grey[i, j]
            for i, j in product(range(60), range(60))
            if not region[i, j] and np.hypot(*(points - (i, j)).T).min() <= 3
        ]
        expected = grey[region].mean() - np.mean(near)
        assert region_features(region, grey)["grey_contrast"] == pytest.approx(expected)

    def test_without_surroundings_there_is_no_contrast(self):
        grey = noise((20, 20))
        found = region_features(np.ones((20, 20), dtype=bool), grey)
        assert math.isnan(found["grey_contrast"])
        assert found["grey_mean"] == pytest.approx(grey.mean())
        assert found["grey_sd"] == pytest.approx(grey.std())

    @pytest.mark.parametrize(
        ("levels", "bits"),
        [([7], 0), ([0, 255], 1), (range(0, 256, 8), 5), ([0, 7], 0), ([7, 8], 1)],
    )
    def test_entropy_in_bits_over_bins_of_eight(self, levels, bits):
        grey = np.resize(np.array(levels, dtype=np.uint8), (32, 32))
        found = region_features(np.ones((32, 32), dtype=bool), grey)
        assert found["grey_entropy"] == pytest.approx(bits, abs=1e-12)


class TestTexture:
    @pytest.mark.parametrize("seed", range(6))
    def test_is_what_counting_pairs_gives(self, seed):
        region = np.random.default_rng(seed).random((13, 10)) < 0.6
        grey = (noise((13, 10), seed) // (1 + 3 * seed)).astype(np.uint8)
        found = region_features(region, grey)
        for name, value in glcm_by_hand(region, grey).items():
            assert found[name] == pytest.approx(value), name

    @given(small_images)
    @few
    def test_is_what_counting_pairs_gives_for_odd_regions_too(self, image):
        region, grey = image
        found = region_features(region, grey)
        expected = glcm_by_hand(region, grey)
        assert {name: found[name] for name in expected} == same(expected)

    def test_a_chessboard_at_both_distances(self):
        grey = (np.indices((16, 16)).sum(axis=0) % 2 * 8).astype(np.uint8)
        found = region_features(np.ones((16, 16), dtype=bool), grey)
        # One step along a row or column changes the bin; two steps, and diagonals, never do.
        assert found["glcm_contrast"] == pytest.approx(2 / 8)
        assert found["glcm_dissimilarity"] == pytest.approx(2 / 8)
        assert found["glcm_homogeneity"] == pytest.approx((2 * 0.5 + 6) / 8)
        assert found["glcm_correlation"] == pytest.approx((6 - 2) / 8, abs=0.01)
        assert found["glcm_energy"] == pytest.approx(math.sqrt(0.5), abs=0.01)

    def test_one_bin_has_no_correlation(self):
        found = region_features(rectangle(9, 9), np.full((SIDE, SIDE), 90, dtype=np.uint8))
        assert math.isnan(found["glcm_correlation"])
        assert found["glcm_energy"] == 1
        assert found["glcm_homogeneity"] == 1
        assert found["glcm_contrast"] == 0


class TestUndefined:
    def test_no_region_no_features(self):
        found = region_features(np.zeros((30, 30), dtype=bool), noise((30, 30)))
        assert list(found) == list(FEATURES)
        assert all(math.isnan(value) for value in found.values())

    def test_a_single_pixel_has_a_place_but_no_form(self):
        region = np.zeros((30, 30), dtype=bool)
        region[4, 5] = True
        found = region_features(region, noise((30, 30)))
        nan = {name for name, value in found.items() if math.isnan(value)}
        assert nan == {
            "circularity", "eccentricity", "solidity", "compactness", "orientation",
            *(name for name in FEATURES if name.startswith("glcm_")),
        }  # fmt: skip
        assert found["area"] == 1 / 900
        assert found["aspect_ratio"] == 1

    @pytest.mark.parametrize("height_width", [(1, 2), (2, 1), (1, 9), (2, 2)])
    def test_slivers_are_defined_and_warn_of_nothing(self, height_width):
        found = region_features(rectangle(*height_width), noise())
        undefined = {name for name, value in found.items() if math.isnan(value)}
        assert undefined <= {"orientation", "glcm_correlation"}

    @pytest.mark.parametrize(
        ("region", "grey"),
        [
            (np.ones((3, 3), dtype=bool), np.ones((3, 4), dtype=np.uint8)),
            (np.ones(3, dtype=bool), np.ones(3, dtype=np.uint8)),
            (np.ones((3, 3), dtype=np.uint8), np.ones((3, 3), dtype=np.uint8)),
            (np.ones((3, 3), dtype=bool), np.ones((3, 3), dtype=np.float32)),
        ],
    )
    def test_other_shapes_and_types_are_refused(self, region, grey):
        with pytest.raises(ValueError, match="region and grey must be"):
            region_features(region, grey)


class TestInvariance:
    @given(small_images)
    @few
    def test_a_quarter_turn_swaps_height_and_width(self, image):
        region, grey = image
        found, turned = (
            region_features(region, grey),
            region_features(np.rot90(region), np.rot90(grey)),
        )
        expected = found | {
            "aspect_ratio": 1 / found["aspect_ratio"],
            "orientation": math.pi / 2 - found["orientation"],
        }
        assert turned == same(expected)

    @given(small_images)
    @few
    def test_a_mirror_changes_nothing(self, image):
        region, grey = image
        mirrored = region_features(region[:, ::-1], grey[:, ::-1])
        assert mirrored == same(region_features(region, grey))

    @given(small_images, st.integers(0, 12), st.integers(0, 12))
    @few
    def test_a_shift_changes_nothing(self, image, down, right):
        region, grey = image
        places = [(4, 4), (4 + down, 4 + right)]
        results = []
        for top, left in places:
            wide, image = np.zeros((40, 40), dtype=bool), np.zeros((40, 40), dtype=np.uint8)
            wide[top : top + 7, left : left + 9] = region
            image[top : top + 7, left : left + 9] = grey
            results.append(region_features(wide, image))
        assert results[1] == same(results[0])

    def test_what_lies_outside_moves_only_the_contrast(self):
        region, grey = ellipse(20, 14, 30, side=64), noise((64, 64))
        changed = np.where(region, grey, 255 - grey)
        found, other = region_features(region, grey), region_features(region, changed)
        assert [name for name in FEATURES if found[name] != other[name]] == ["grey_contrast"]

    def test_shape_knows_nothing_of_grey_levels(self):
        region = ellipse(20, 14, 30, side=64)
        found, other = (
            region_features(region, noise((64, 64))),
            region_features(region, noise((64, 64), 1)),
        )
        assert {name for name in FEATURES if found[name] != other[name]} == set(OTHERS)


class TestTable:
    def test_rows_are_the_regions_at_each_share(self):
        cam, grey = np.random.default_rng(3).random((7, 7), dtype=np.float32), noise((64, 64))
        rows = feature_rows("a", 1, cam, grey)
        assert [row["threshold"] for row in rows] == list(SHARES)
        for row in rows:
            region = hot_spot(upsample(cam, 64, 64), row["threshold"])
            expected = region_features(region, grey)
            assert {name: row[name] for name in FEATURES} == expected
            assert (row["image_id"], row["label"]) == ("a", 1)

    @pytest.mark.parametrize("height_to_width", [315 / 500, 1.0, 500 / 315])
    def test_a_disc_in_the_image_as_it_came_is_a_disc(self, height_to_width):
        """The network sees it squashed; DDTI's images are 500 x 315."""
        side = 224
        y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
        cone = np.clip(0.3 - np.hypot(y * height_to_width, x), 0, None).astype(np.float32)
        (row,) = feature_rows(
            "a", 1, cone, noise((side, side)), (0.5,), height_to_width=height_to_width
        )
        assert row["aspect_ratio"] == pytest.approx(1, abs=0.03)
        assert row["circularity"] == pytest.approx(1, abs=0.06)
        assert row["eccentricity"] < 0.2
        assert row["area"] == pytest.approx(math.pi * 0.15**2 / height_to_width, rel=0.05)
        (squashed,) = feature_rows("a", 1, cone, noise((side, side)), (0.5,))
        assert squashed["aspect_ratio"] == pytest.approx(1 / height_to_width, abs=0.03)
        same = [name for name, family in FEATURES.items() if family != "shape"]
        assert repr([row[name] for name in same]) == repr([squashed[name] for name in same])

    @pytest.mark.parametrize(("height_to_width", "tall"), [(315 / 500, False), (1.0, True)])
    def test_the_squash_alone_makes_no_nodule_taller_than_wide(self, height_to_width, tall):
        """A nodule of 40 x 30 in the square is 40 x 48 in an image of DDTI's proportions."""
        mask = rectangle(40, 30)
        mask[200:204, 10:90] = True  # a second, smaller nodule
        aspects = outline_aspects(mask, height_to_width)
        assert aspects["nodule_aspect"] == pytest.approx(40 / 30 * height_to_width)
        assert (aspects["nodule_aspect"] > 1) == tall
        assert aspects["nodule_tallest"] == aspects["nodule_aspect"]
        nothing = outline_aspects(np.zeros((9, 9), dtype=bool), 1.0)
        assert all(math.isnan(value) for value in nothing.values())

    @pytest.mark.parametrize(("height", "tallest"), [(11, 11 / 12), (18, 18 / 12), (8, 10 / 120)])
    def test_the_tallest_outline_may_be_another_than_the_largest(self, height, tallest):
        """A tenth of the largest one's 1,200 pixels is no speck any more; 8 x 12 is one."""
        mask = np.zeros((224, 224), dtype=bool)
        mask[20:30, 10:130] = True
        mask[100 : 100 + height, 60:72] = True
        aspects = outline_aspects(mask, 1.0)
        assert aspects["nodule_aspect"] == pytest.approx(10 / 120)
        assert aspects["nodule_tallest"] == pytest.approx(tallest)

    def test_an_empty_map_keeps_its_rows(self):
        rows = feature_rows("a", 0, np.zeros((7, 7), dtype=np.float32), noise((64, 64)), (0.5,))
        assert len(rows) == 1
        assert math.isnan(rows[0]["area"])

    def test_is_sorted_typed_and_has_its_keys(self):
        cam, grey = np.random.default_rng(4).random((7, 7), dtype=np.float32), noise((64, 64))
        rows = [
            *feature_rows("b", None, cam, grey, (0.7, 0.5)),
            *feature_rows("a", 1, cam * 0, grey, (0.7, 0.5)),
        ]
        table = features_table(KEYS, rows)
        assert table.schema.equals(SCHEMA, check_metadata=True)
        order = table.select(["threshold", "image_id", "label"]).to_pylist()
        assert [tuple(row.values()) for row in order] == [
            (0.5, "a", 1), (0.5, "b", None), (0.7, "a", 1), (0.7, "b", None),
        ]  # fmt: skip
        assert set(table["split"].to_pylist()) == {3}
        assert table["area"].null_count == 0
        shuffled = features_table(KEYS, rows[::-1])
        pd.testing.assert_frame_equal(shuffled.to_pandas(), table.to_pandas(), check_exact=True)

    def test_without_images_it_is_empty_but_typed(self):
        assert features_table(KEYS, []).equals(SCHEMA.empty_table())

    @pytest.mark.parametrize("change", [{"odd": 1.0}, {"area": None}])
    def test_refuses_rows_of_another_form(self, change):
        rows = feature_rows("a", 1, np.ones((2, 2), dtype=np.float32), noise((16, 16)), (0.5,))
        row = rows[0] | change
        if row["area"] is None:
            del row["area"]
        with pytest.raises(ValueError, match=str(next(iter(change)))):
            features_table(KEYS, [row])

    def test_schema_documents_every_column_in_the_order_of_the_features(self):
        names = ["study_id", "split", "architecture", "image_id", "label", "threshold"]
        assert SCHEMA.names == [*names, *FEATURES]
        assert SCHEMA.field("split").type == pa.int32()
        assert SCHEMA.field("label").type == pa.int8()
        assert all(SCHEMA.field(name).type == pa.float64() for name in FEATURES)
        assert all(len(field.metadata[b"doc"]) > 15 for field in SCHEMA)
        assert list(dict.fromkeys(FEATURES.values())) == ["shape", "intensity", "texture"]
