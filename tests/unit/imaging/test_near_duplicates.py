import importlib.util
import io
from functools import cache

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, zoom

from tests.support.places import REPOSITORY, SHARED
from tests.support.symmetries import seen
from thyro_core.datasets.phantoms.generate import write_phantoms
from thyro_core.imaging import near_duplicates as nd
from thyro_core.imaging.symmetry import SYMMETRIES


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


def mirrored(grey):
    return np.ascontiguousarray(grey[:, ::-1])


def zoomed(grey):
    height, width = grey.shape
    inner = grey[height // 6 : -height // 6, width // 6 : -width // 6]
    return np.asarray(Image.fromarray(inner).resize((width, height)))


def turned(grey):
    return np.asarray(Image.fromarray(grey).rotate(3, Image.Resampling.BILINEAR))


def beside_others(grey):
    return np.concatenate([speckle(999)[: len(grey)], grey], axis=1)


CHANGES = (
    recompressed, annotated, halved, brighter, cropped, shrunk, mirrored, zoomed, turned,
    beside_others,
)  # fmt: skip


def pairs_of(*images, **bounds):
    found = nd.near_duplicates(nd.fingerprints(images), **bounds)
    return [(pair.first, pair.second) for pair in found]


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found_among_strangers(change):
    for seed in range(3):
        original, strangers = speckle(seed), [speckle(100 + seed), speckle(200 + seed)]
        assert pairs_of(strangers[0], original, strangers[1], change(original)) == [(1, 3)]


@pytest.mark.parametrize("symmetry", SYMMETRIES)
@pytest.mark.parametrize("shape", [(300, 400), (300, 300), (420, 260)])
def test_all_eight_forms_of_a_picture_are_found_and_said(symmetry, shape):
    original = speckle(1, *shape)
    images = [speckle(7, *shape), original, seen(original, symmetry), speckle(9, *shape)]
    (pair,) = nd.near_duplicates(nd.fingerprints(images))
    assert (pair.first, pair.second) == (1, 2)
    assert pair.same_picture
    assert pair.symmetry == symmetry
    assert pair.correlation > 0.99
    assert pair.n_shared > 50


@pytest.mark.parametrize("change", [recompressed, annotated, halved, brighter, cropped])
def test_a_turned_copy_is_found_through_other_changes(change):
    for symmetry in SYMMETRIES:
        copy = change(seen(speckle(symmetry), symmetry))
        assert pairs_of(speckle(50), speckle(symmetry), speckle(51), copy) == [(1, 3)]


def test_strangers_in_one_fan_are_apart_though_they_share_its_print():
    assert pairs_of(*(in_fan(speckle(seed)) for seed in range(6))) == []


def test_what_differs_in_its_speckle_is_similar_and_not_the_same_picture():
    """A next frame keeps the anatomy and changes the speckle: alike, yet no copy."""
    rng = np.random.default_rng(5)
    first = speckle(3)
    grain = gaussian_filter(rng.normal(size=first.shape), 3)
    second = np.clip(first + 15 * grain / grain.std(), 0, 255).astype(np.uint8)
    (pair,) = nd.near_duplicates(nd.fingerprints([first, second]), 0.99)
    assert not pair.same_picture
    assert 0.97 <= pair.correlation < 0.99
    assert pairs_of(first, second, same_picture=0.99, similar=0.99) == []
    assert pairs_of(first, second, similar=1.0) == [(0, 1)]


@pytest.mark.parametrize("level", [0, 77, 255])
def test_flat_images_are_duplicates_of_nothing(level):
    flat = np.full((100, 120), level, np.uint8)
    assert len(nd.fingerprint(flat).features.places) == 0
    assert pairs_of(flat, flat.copy(), speckle(1), same_picture=1e-6, similar=1e-6) == []


def test_none_and_one_image_have_no_pairs():
    assert pairs_of() == []
    assert pairs_of(speckle(1)) == []


def test_twenty_copies_of_one_picture_are_one_group():
    rng = np.random.default_rng(0)
    copies = [np.clip(speckle(1) + rng.normal(0, 2, (300, 400)), 0, 255) for _ in range(20)]
    images = [speckle(2), *(copy.astype(np.uint8) for copy in copies), speckle(4)]
    labels = nd.group_labels(pairs_of(*images), len(images))
    assert labels.tolist() == [0, *[1] * 20, 2]


@pytest.mark.parametrize("bounds", [(0.0, 0.5), (1.01, 0.5), (0.9, 0.0), (0.9, 1.1)])
def test_bounds_outside_their_range_are_refused(bounds):
    with pytest.raises(ValueError, match=rf"found {bounds[0]}, {bounds[1]}"):
        nd.near_duplicates([], *bounds)


@pytest.mark.parametrize(
    "grey",
    [np.zeros((9, 9), np.float32), np.zeros((9, 9, 3), np.uint8), np.zeros((0, 9), np.uint8)],
    ids=["float", "colour", "empty"],
)
def test_what_is_no_grey_image_is_refused(grey):
    with pytest.raises(ValueError, match=r"expected a uint8 \(H, W\) image"):
        nd.fingerprint(grey)


@pytest.mark.parametrize("shape", [(300, 400), (193, 1000), (767, 769)])
def test_the_hash_is_the_librarys_but_for_reducing_first(shape):
    grey = in_fan(speckle(0, *shape))
    direct = imagehash.phash(Image.fromarray(grey))
    assert (int(nd.fingerprint(grey).phash, 16) ^ int(str(direct), 16)).bit_count() <= 2


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (2000, 3), (33, 31)])
def test_odd_shapes_have_fingerprints(shape):
    rng = np.random.default_rng(0)
    made = nd.fingerprint(rng.integers(0, 256, shape, dtype=np.uint8))
    assert made.thumbnail.shape == (nd.THUMBNAIL, nd.THUMBNAIL)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(8)))
def test_order_only_names_the_images(order):
    images = [change(speckle(seed)) for seed in range(4) for change in (np.copy, annotated)]
    prints = nd.fingerprints(images)
    found = nd.near_duplicates([prints[k] for k in order])
    named = sorted(tuple(sorted((order[pair.first], order[pair.second]))) for pair in found)
    assert named == [(0, 1), (2, 3), (4, 5), (6, 7)]


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
    found = nd.near_duplicates(bench.read_fingerprints(source, names))
    pairs = {(pair.first, pair.second) for pair in found}
    assert true <= pairs
    # Re-exports of another crop that the sheet lacks, and an independent search finds.
    beyond_the_sheet = {(114, 385), (316, 442), (360, 442)}
    numbers = {pair: (int(names[pair[0]][8:12]), int(names[pair[1]][8:12])) for pair in pairs}
    assert beyond_the_sheet <= set(numbers.values())
    true |= {pair for pair, number in numbers.items() if number in beyond_the_sheet}
    same = {(pair.first, pair.second) for pair in found if pair.same_picture}
    recall, precision = bench.recall_precision(same, true)
    assert recall >= 0.95
    assert precision >= 0.9
    # Pairs that are only similar, such as neighbouring frames of one sweep, are kept together too.
    assert len(pairs - true) <= 20


def test_frames_of_different_patients_are_apart(bench):
    source = SHARED / "data" / "ddti"
    if not (source / "labels.csv").is_file():
        pytest.skip(f"no thyroid images: {source / 'labels.csv'} is absent")
    labels = bench.pd.read_csv(source / "labels.csv")
    prints = bench.read_fingerprints(source, labels["image"])
    patient = labels["patient_id"].tolist()
    found = nd.near_duplicates(prints)
    assert [pair for pair in found if patient[pair.first] != patient[pair.second]] == []


def test_recall_and_precision_of_a_hand_counted_case(bench):
    recall, precision = bench.recall_precision({(0, 1), (0, 2), (3, 4)}, {(0, 1), (3, 4), (5, 6)})
    assert (recall, precision) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert np.isnan(bench.recall_precision(set(), set())).all()


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """The pictures of a set of phantoms, and their fingerprints."""
    folder = tmp_path_factory.mktemp("phantoms")
    write_phantoms(str(folder), images=60, malignant=20)
    names = pd.read_csv(folder / "labels.csv")["image"]
    pictures = [np.asarray(Image.open(folder / name).convert("L")) for name in names]
    return pictures, nd.fingerprints(pictures)


RE_EXPORTS = (
    "crop of 5 % a side", "crop of 10 % a side", "crop of 15 % a side", "crop of 0 to 15 % a side",
    "toolbar", "scanner's frame", "zoom of 1.3", "zoom of 1.5", "mirror", "turn by 90 degrees",
    "upside down", "transposition, recompression", "rotation of 3 degrees", "half of a dual view",
    "gain +40", "gain -40", "gamma 0.6", "gamma 1.6", "recompression", "callipers, dotted lines",
    "next frame, 3 % of motion",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("kind", RE_EXPORTS)
def test_every_kind_of_re_export_is_found_among_phantoms(bench, phantoms, kind):
    pictures, prints = phantoms
    copies = [
        np.ascontiguousarray(bench.CHANGES[kind](picture, np.random.default_rng(k)))
        for k, picture in enumerate(pictures)
    ]
    found = nd.near_duplicates([*prints, *nd.fingerprints(copies)])
    pairs = {(pair.first, pair.second) for pair in found}
    n = len(pictures)
    assert len({(k, n + k) for k in range(n)} & pairs) / n >= 0.95
    # Nor is an image held for another one, or its copy. Two copies have one scanner's frame.
    assert {(i, j % n) for i, j in pairs if i < n and i != j % n} == set()


@pytest.mark.slow
def test_every_change_of_the_bench_is_tried(bench):
    assert tuple(bench.CHANGES) == RE_EXPORTS
