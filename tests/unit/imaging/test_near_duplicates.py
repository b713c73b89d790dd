import importlib.util
import io
from functools import cache
from itertools import combinations

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from tests.support.places import REPOSITORY, SHARED
from thyro_core.imaging import near_duplicates as nd

DISTANCE, CORRELATION = 10, 0.95


@cache
def speckle(seed, height=300, width=400):
    """Smooth tissue under multiplicative speckle: a picture of its own for each seed."""
    rng = np.random.default_rng(seed)
    tissue = gaussian_filter(rng.normal(size=(height, width)), 18)
    grain = gaussian_filter(rng.normal(size=(height, width)), 3)
    grey = 100 + 45 * tissue / tissue.std() + 22 * grain / grain.std()
    return np.clip(grey, 0, 255).astype(np.uint8)


def in_fan(grey, text="RT LOBE 12 cm"):
    """The same dark border, fan and burned-in text around any tissue."""
    height, width = grey.shape
    y, x = np.mgrid[:height, :width]
    radius, angle = np.hypot(y + 60, x - width / 2), np.arctan2(x - width / 2, y + 60)
    fan = (radius > 90) & (radius < height + 30) & (np.abs(angle) < 0.6)
    picture = Image.fromarray(np.where(fan, grey, 0).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), text, fill=255)
    draw.rectangle((width - 30, 40, width - 20, height - 40), fill=200)
    return np.asarray(picture)


def recompressed(grey):
    data = io.BytesIO()
    Image.fromarray(grey).save(data, "JPEG", quality=40)
    return np.asarray(Image.open(data))


def annotated(grey):
    picture = Image.fromarray(grey)
    draw = ImageDraw.Draw(picture)
    for x, y in ((150, 120), (260, 170)):
        draw.line((x - 5, y, x + 5, y), fill=255, width=2)
        draw.line((x, y - 5, x, y + 5), fill=255, width=2)
    draw.text((20, 270), "LT 3", fill=255)
    return np.asarray(picture)


def halved(grey):
    return np.asarray(Image.fromarray(grey).resize((grey.shape[1] // 2, grey.shape[0] // 2)))


def brighter(grey):
    return np.clip(grey * 0.8 + 40, 0, 255).astype(np.uint8)


def cropped(grey):
    height, width = grey.shape
    return np.ascontiguousarray(grey[height // 50 :, width // 50 : -width // 50])


def shrunk(grey):
    return np.ascontiguousarray(zoom(grey, (1.0, 0.8), order=1))


CHANGES = (recompressed, annotated, halved, brighter, cropped, shrunk)


def pairs_of(*images, distance=DISTANCE, correlation=CORRELATION):
    return nd.near_duplicates([nd.fingerprint(g) for g in images], distance, correlation)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("frame", [lambda grey: grey, in_fan], ids=["bare", "fan"])
def test_a_changed_copy_is_found_among_strangers(change, frame):
    for seed in range(4):
        original = frame(speckle(seed))
        strangers = [frame(speckle(100 + seed)), frame(speckle(200 + seed))]
        assert pairs_of(strangers[0], original, strangers[1], change(original)) == [(1, 3)]


def test_strangers_in_one_fan_are_apart_even_without_the_hash():
    images = [in_fan(speckle(seed)) for seed in range(16)]
    assert pairs_of(*images, distance=64) == []


def test_a_bright_fan_with_faint_tissue_does_not_merge_strangers():
    """The reason for local contrast: grey levels alone correlate above the bound here."""
    faint = [in_fan(speckle(seed) // 6 + 110) for seed in range(6)]
    thumbs = [np.asarray(Image.fromarray(g).resize((32, 32)), float)[3:-3, 3:-3] for g in faint]
    plain = np.corrcoef([thumb.ravel() for thumb in thumbs])
    assert plain.min() > 0.96
    assert pairs_of(*faint, recompressed(faint[2]), distance=64) == [(2, 6)]


def test_what_differs_only_in_speckle_is_confirmed_only_by_fewer_than_the_bound():
    """A next frame keeps the anatomy and changes the speckle: alike, yet no duplicate."""
    rng = np.random.default_rng(5)
    first = speckle(3)
    grain = gaussian_filter(rng.normal(size=first.shape), 5)
    second = np.clip(first + 35 * grain / grain.std(), 0, 255).astype(np.uint8)
    assert pairs_of(first, second, distance=64) == []
    assert pairs_of(first, second, distance=64, correlation=0.3) == [(0, 1)]


@pytest.mark.parametrize("seed", range(3))
def test_copies_at_the_limits_pair_up_as_hash_and_correlation_alone_would(seed):
    """The search may lose pairs; of changed copies like these it loses none."""
    rng = np.random.default_rng(seed)
    prints = []
    for k in range(8):
        grey = speckle(40 + 10 * seed + k)
        top, bottom, left, right = (rng.uniform(0, 0.05, 4) * (300, 300, 400, 400)).astype(int)
        crop = np.ascontiguousarray(grey[top : 300 - bottom, left : 400 - right])
        prints += [nd.fingerprint(g) for g in (grey, annotated(grey), recompressed(crop))]
    hashes = [int(one.phash, 16) for one in prints]
    stack = np.stack([one.descriptor for one in prints]).astype(np.float32)
    expected = [
        (i, j)
        for i, j in combinations(range(len(prints)), 2)
        if (hashes[i] ^ hashes[j]).bit_count() <= 16
        and nd._either_way(stack[[i]], stack[[j]], 10)[0] >= CORRELATION
    ]
    assert nd.near_duplicates(prints, 16, CORRELATION) == expected
    assert len(expected) >= 20


def test_mirror_images_are_not_near_duplicates():
    grey = speckle(1)
    assert pairs_of(grey, np.ascontiguousarray(grey[:, ::-1]), distance=64) == []


def test_both_measures_must_agree():
    grey = speckle(2)
    same, stranger = nd.fingerprint(grey), nd.fingerprint(speckle(9))
    liar = nd.Fingerprint(same.phash, stranger.descriptor)
    far = nd.Fingerprint(f"{int(same.phash, 16) ^ 0x7FF:016x}", same.descriptor)
    assert nd.near_duplicates([same, liar], 10, CORRELATION) == []
    assert nd.near_duplicates([same, far], 10, CORRELATION) == []
    assert nd.near_duplicates([same, far], 11, CORRELATION) == [(0, 1)]


def test_a_crop_that_moves_the_hash_is_still_confirmed():
    for seed in range(4):
        grey = speckle(seed)
        crop = np.ascontiguousarray(grey[20:-20, 26:-26])
        assert pairs_of(grey, crop, distance=64) == [(0, 1)]
        assert pairs_of(crop, grey, distance=64) == [(0, 1)]


def test_the_better_way_round_counts_in_either_order():
    first, second = (nd.fingerprint(g) for g in (speckle(1), annotated(cropped(speckle(1)))))
    left, right = (item.descriptor[None].astype(np.float32) for item in (first, second))
    there = nd.registered_correlation(left, right)[0]
    back = nd.registered_correlation(right, left)[0]
    between = float(there + back) / 2
    assert abs(there - back) > 1e-4
    assert nd.near_duplicates([first, second], 64, between) == [(0, 1)]
    assert nd.near_duplicates([second, first], 64, between) == [(0, 1)]


@pytest.mark.parametrize("level", [0, 77, 255])
def test_flat_images_are_duplicates_of_nothing(level):
    flat = np.full((100, 120), level, np.uint8)
    assert not nd.fingerprint(flat).descriptor.any()
    assert pairs_of(flat, flat.copy(), speckle(1), distance=64, correlation=1e-6) == []


def test_strangers_at_low_gain_are_apart_though_the_fan_outshines_them():
    dim = [in_fan(speckle(seed) // 12) for seed in range(6)]
    assert pairs_of(*dim, distance=64) == []
    assert pairs_of(*dim, recompressed(dim[2]), distance=64) == [(2, 6)]


def test_none_and_one_image_have_no_pairs():
    assert pairs_of() == []
    assert pairs_of(speckle(1)) == []


def test_identical_images_pair_up_completely():
    found = pairs_of(*(speckle(k) for k in (1, 2, 1, 1, 2)), distance=0, correlation=0.999)
    assert found == [(0, 2), (0, 3), (1, 4), (2, 3)]


@pytest.mark.parametrize(("distance", "correlation"), [(-1, 0.9), (65, 0.9), (10, 0.0), (10, 1.01)])
def test_bounds_outside_their_range_are_refused(distance, correlation):
    with pytest.raises(ValueError, match=rf"found {distance}, {correlation}"):
        nd.near_duplicates([], distance, correlation)


@pytest.mark.parametrize(
    "grey",
    [np.zeros((9, 9), np.float32), np.zeros((9, 9, 3), np.uint8), np.zeros((0, 9), np.uint8)],
    ids=["float", "colour", "empty"],
)
def test_what_is_no_grey_image_is_refused(grey):
    with pytest.raises(ValueError, match=r"expected a uint8 \(H, W\) image"):
        nd.fingerprint(grey)


def test_the_hash_is_the_librarys_and_the_fingerprint_small():
    grey = speckle(4, 180, 190)
    made = nd.fingerprint(grey)
    assert made.phash == str(imagehash.phash(Image.fromarray(grey)))
    assert len(made.phash) == 16
    assert made.descriptor.dtype == np.int8
    assert made.descriptor.shape == (nd.SIDE, nd.SIDE)
    assert np.array_equal(made.descriptor, nd.fingerprint(grey.copy()).descriptor)


@pytest.mark.parametrize("shape", [(300, 400), (193, 1000), (767, 769), (2000, 150)])
def test_reducing_first_hardly_moves_hash_and_descriptor(shape):
    for seed in range(3):
        grey = in_fan(speckle(seed, *shape))
        made = nd.fingerprint(grey)
        direct = imagehash.phash(Image.fromarray(grey))
        assert (int(made.phash, 16) ^ int(str(direct), 16)).bit_count() <= 2
        small = Image.fromarray(grey).resize((nd.SIDE, nd.SIDE), Image.Resampling.BOX)
        contrast = plain_contrast(np.asarray(small, float)) * 32
        assert np.corrcoef(made.descriptor.ravel(), contrast.ravel())[0, 1] > 0.98


def plain_contrast(grey):
    detail = gaussian_filter(grey, 0.7) - gaussian_filter(grey, 2)
    return detail / (np.sqrt(gaussian_filter(detail**2, 2)) + 0.5)


def test_the_descriptor_is_the_local_contrast_in_steps():
    grey = speckle(6)[:32, :32].copy()
    expected = np.clip(np.rint(plain_contrast(grey.astype(float)) * 32), -127, 127)
    found = nd.fingerprint(grey).descriptor.astype(int)
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (2000, 3), (33, 31)])
def test_odd_shapes_have_fingerprints(shape):
    rng = np.random.default_rng(0)
    made = nd.fingerprint(rng.integers(0, 256, shape, dtype=np.uint8))
    assert made.descriptor.shape == (nd.SIDE, nd.SIDE)


def shifted(seed, dy, dx, stretch):
    """Two windows of one smooth random field, the second shifted and stretched [pixels]."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=(96, 96)), 2)
    scene = Image.fromarray(field.astype(np.float32))
    box = (32 + dx, 32 + dy, 32 + dx + nd.SIDE * stretch, 32 + dy + nd.SIDE * stretch)
    moved = scene.transform((nd.SIDE, nd.SIDE), Image.Transform.EXTENT, box, Image.BILINEAR)
    return field[None, 32:64, 32:64].astype(np.float32), np.asarray(moved)[None]


@pytest.mark.parametrize(
    ("dy", "dx", "stretch"), [(0, 0, 1), (2, 0, 1), (0, -2, 1), (1.5, -1, 1), (-1, -1, 1.08)]
)
def test_registration_undoes_shift_and_stretch(dy, dx, stretch):
    for seed in range(5):
        fixed, moving = shifted(seed, dy, dx, stretch)
        assert nd.registered_correlation(fixed, moving)[0] > 0.97


def test_registration_does_not_reach_far_and_never_falls_below_the_plain_correlation():
    fixed, moving = shifted(0, 12, 12, 1)
    middle = slice(3, -3)
    plain = np.corrcoef(fixed[0, middle, middle].ravel(), moving[0, middle, middle].ravel())[0, 1]
    found = nd.registered_correlation(fixed, moving)[0]
    assert plain - 1e-5 <= found < 0.9


def test_registration_is_unmoved_by_scale_and_offset_and_knows_no_contrast():
    fixed, moving = shifted(1, 1, 0, 1)
    base = nd.registered_correlation(fixed, moving)
    assert nd.registered_correlation(fixed, 3 * moving) == pytest.approx(base, abs=1e-4)
    assert nd.registered_correlation(fixed, np.zeros_like(moving)).tolist() == [0]
    assert nd.registered_correlation(np.zeros_like(fixed), moving).tolist() == [0]
    stripes = np.broadcast_to(np.sin(np.arange(32, dtype=np.float32))[None, :, None], (1, 32, 32))
    assert nd.registered_correlation(stripes, stripes) == pytest.approx([1], abs=1e-5)


@cache
def pool():
    """Four frames, each with a cropped and an annotated copy."""
    return [
        nd.fingerprint(in_fan(change(speckle(seed))))
        for seed in range(4)
        for change in (np.copy, cropped, annotated)
    ]


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(12)), st.sampled_from([6, 10, 30, 64]))
def test_order_only_names_the_images(order, distance):
    found = nd.near_duplicates([pool()[k] for k in order], distance, 0.7)
    expected = nd.near_duplicates(pool(), distance, 0.7)
    named = sorted(tuple(sorted((order[i], order[j]))) for i, j in found)
    assert found == sorted(found)
    assert all(i < j for i, j in found)
    assert named == expected
    assert len(expected) >= 4


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 64),
    st.integers(0, 64),
    st.floats(0.05, 1),
    st.floats(0.05, 1),
    st.sampled_from([7, 64]),
)
def test_looser_bounds_never_lose_a_pair(bits, more_bits, bound, other_bound, batch):
    loose = nd.near_duplicates(pool(), max(bits, more_bits), min(bound, other_bound))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nd, "_BATCH", batch)
        tight = nd.near_duplicates(pool(), min(bits, more_bits), max(bound, other_bound))
    assert set(tight) <= set(loose)


def union_find(pairs, n):
    parent = list(range(n))
    for i, j in pairs:
        a, b = parent[i], parent[j]
        parent = [a if p == b else p for p in parent]
    names = {}
    return [names.setdefault(p, len(names)) for p in parent]


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 25).flatmap(lambda n: st.tuples(
    st.just(n),
    st.lists(st.tuples(*[st.integers(0, n - 1)] * 2), max_size=30) if n else st.just([]),
)))  # fmt: skip
def test_groups_are_those_of_union_find(case):
    n, pairs = case
    labels = nd.group_labels(pairs, n)
    assert labels.dtype == np.int64
    assert labels.tolist() == union_find(pairs, n)


@pytest.mark.parametrize(("pairs", "n"), [([(0, 3)], 3), ([(-1, 0)], 2), ([(0, 1)], 0)])
def test_a_pair_outside_the_images_is_refused(pairs, n):
    with pytest.raises(ValueError, match=rf"{pairs[0][0]}.*{pairs[0][1]}.*{n}"):
        nd.group_labels(pairs, n)


@pytest.fixture
def bench(monkeypatch):
    path = REPOSITORY / "tests" / "bench" / "near_duplicates.py"
    monkeypatch.syspath_prepend(str(path.parent))
    spec = importlib.util.spec_from_file_location("bench_near_duplicates", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_answer_sheet_is_met(bench):
    source = SHARED / "data" / "busi"
    if not (source / "near_duplicates.csv").is_file():
        pytest.skip(f"no answer sheet: {source / 'near_duplicates.csv'} is absent")
    names = bench.pd.read_csv(source / "labels.csv")["image"].tolist()
    true = bench.answer_pairs(source / "near_duplicates.csv", names)
    assert len(true) == 100
    prints = bench.read_fingerprints(source, names)
    found = set(nd.near_duplicates(prints, bench.DISTANCE, bench.CORRELATION))
    recall, precision = bench.recall_precision(found, true)
    assert recall >= 0.95
    assert precision >= 0.90


def test_frames_of_different_patients_are_apart(bench):
    source = SHARED / "data" / "ddti"
    if not (source / "labels.csv").is_file():
        pytest.skip(f"no thyroid images: {source / 'labels.csv'} is absent")
    labels = bench.pd.read_csv(source / "labels.csv")
    prints = bench.read_fingerprints(source, labels["image"])
    patient = labels["patient_id"].tolist()
    found = nd.near_duplicates(prints, 16, 0.9)
    assert [pair for pair in found if patient[pair[0]] != patient[pair[1]]] == []


def test_recall_and_precision_of_a_hand_counted_case(bench):
    recall, precision = bench.recall_precision({(0, 1), (0, 2), (3, 4)}, {(0, 1), (3, 4), (5, 6)})
    assert (recall, precision) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert np.isnan(bench.recall_precision(set(), set())).all()
