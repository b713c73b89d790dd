import csv
import dataclasses
import hashlib
import io
from collections import Counter

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from thyro_core.datasets.phantoms import anatomy, generate
from thyro_core.datasets.phantoms.features import (
    ANECHOIC_DB,
    Features,
    draw_features,
    tirads_points,
)
from thyro_core.datasets.phantoms.generate import phantom, write_phantoms
from thyro_core.errors import InputError
from thyro_core.store.store import open_store

SEEDS = st.integers(0, 2**32)
LINEAR = next(i for i in range(50) if not anatomy.draw_scan(0, i).fan)
FAN = next(i for i in range(50) if anatomy.draw_scan(0, i).fan)


def nodule(**changes):
    plain = Features("solid", "isoechoic", "wider", "smooth", "none", False, 0.0, 0.8)
    return dataclasses.replace(plain, **changes)


def rendered(monkeypatch, index, features, malignant=False):
    monkeypatch.setattr(generate.phantom_features, "draw_features", lambda *_: features)
    return phantom(0, index, malignant)


def inside(made, depth=6):
    return ndimage.binary_erosion(made.mask, iterations=depth)


def contents(folder):
    store = open_store(str(folder))
    return {key: store.read(key) for key in store.keys("")}


# Features: the class, and nothing but the class, decides how they fall.


def test_golden_features():
    drawn = repr([dataclasses.astuple(draw_features(0, i, bool(i % 2))) for i in range(40)])
    golden = "a7401ee2bfa443745083d7c41db19d61ec72e378b858c1157df830f785df1ff0"
    assert hashlib.sha256(drawn.encode()).hexdigest() == golden


@pytest.mark.parametrize(
    ("changes", "points"),
    # Worked out by hand from the ACR TI-RADS chart (Tessler 2017).
    [
        ({}, 3),
        ({"composition": "cystic", "echogenicity": "anechoic"}, 0),
        ({"composition": "spongiform"}, 0),
        ({"composition": "mixed", "echogenicity": "hyperechoic", "foci": "comet-tail"}, 2),
        ({"echogenicity": "hypoechoic", "margin": "ill-defined"}, 4),
        ({"echogenicity": "hypoechoic", "foci": "macrocalcification"}, 5),
        ({"echogenicity": "very hypoechoic", "foci": "rim"}, 7),
        ({"echogenicity": "very hypoechoic", "shape": "taller", "margin": "irregular"}, 10),
        ({"shape": "taller", "margin": "lobulated", "foci": "punctate"}, 11),
        ({"halo": True}, 3),
    ],
)
def test_points_follow_the_chart(changes, points):
    assert tirads_points(nodule(**changes)) == points


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_reader_of_features_is_good_but_not_perfect(seed):
    truth = [index < 93 for index in range(508)]
    points = [tirads_points(draw_features(seed, i, label)) for i, label in enumerate(truth)]
    assert 0.85 < roc_auc_score(truth, points) < 0.98


def test_signs_lean_as_the_lexicon_says_and_overlap():
    share = {}
    for malignant in (False, True):
        drawn = [draw_features(5, index, malignant) for index in range(600)]
        counts = Counter(sign for f in drawn for sign in dataclasses.astuple(f)[:5])
        share[malignant] = {sign: count / 600 for sign, count in counts.items()}
        share[malignant]["halo"] = float(np.mean([f.halo for f in drawn]))
    for sign in ("hypoechoic", "very hypoechoic", "taller", "irregular", "lobulated", "punctate"):
        assert share[True][sign] > 1.4 * share[False][sign] > 0, sign
    for sign in ("spongiform", "isoechoic", "wider", "smooth", "halo"):
        assert share[False][sign] > 1.4 * share[True][sign] > 0, sign


@given(seed=SEEDS, index=st.integers(0, 10**6), malignant=st.booleans())
def test_features_are_consistent(seed, index, malignant):
    drawn = draw_features(seed, index, malignant)
    assert (drawn.elongation > 1) == (drawn.shape == "taller")
    assert (drawn.composition == "cystic") == (drawn.echogenicity == "anechoic")
    if drawn.composition in {"cystic", "spongiform"}:
        assert tirads_points(drawn) == 0
        assert drawn.margin == "smooth"
        assert drawn.foci in {"none", "comet-tail"}
    assert 0 <= tirads_points(drawn) <= 13


@given(seed=SEEDS, index=st.integers(0, 10**6))
def test_scan_stays_within_what_its_fields_promise(seed, index):
    scan = anatomy.draw_scan(seed, index)
    assert 300 <= scan.height <= 420
    assert 400 <= scan.width <= 560
    assert 0.25 <= scan.nodule_size <= 0.55
    assert scan.nodule_z - 0.61 * scan.nodule_size > 0.1
    assert scan.nodule_z + 0.61 * scan.nodule_size < 1.0
    assert scan == anatomy.draw_scan(seed, index)


# Pictures.


def test_same_arguments_same_picture_and_others_another():
    first, again, other = phantom(3, 1, True), phantom(3, 1, True), phantom(3, 2, True)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.mask, again.mask)
    assert first.features == again.features
    assert other.image.shape != first.image.shape or (other.image != first.image).any()
    seeded = phantom(4, 1, True)
    assert seeded.image.shape != first.image.shape or (seeded.image != first.image).any()


@pytest.mark.parametrize(
    ("index", "malignant", "shape", "expected"),
    [
        (0, False, (392, 492), (59.3147, 43.291, 0.1133, 104.3944)),
        (1, True, (417, 436), (46.4328, 42.0787, 0.1314, 34.2078)),
        (3, False, (365, 423), (49.9374, 40.5478, 0.1447, 40.5608)),
    ],
)
def test_golden_statistics(index, malignant, shape, expected):
    made = phantom(0, index, malignant)
    assert made.image.shape == made.mask.shape == shape
    assert made.image.dtype == np.uint8
    assert made.mask.dtype == np.bool_
    figures = (made.image.mean(), made.image.std(), made.mask.mean(), made.image[made.mask].mean())
    assert figures == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("index", [LINEAR, FAN])
def test_classes_differ_only_in_and_below_the_nodule(monkeypatch, index):
    """Scanner, neck, marks and speckle are drawn without the class: twins show it."""
    pair = (nodule(), nodule(margin="irregular", echo_db=-14.0, elongation=1.4, foci="punctate"))
    benign, malignant = (rendered(monkeypatch, index, pair[label], bool(label)) for label in (0, 1))
    either = benign.mask | malignant.mask
    rows = np.flatnonzero(either.any(axis=1))
    above = slice(0, int(rows[0]) - 25)
    assert above.stop > 30
    apart = np.abs(benign.image[above].astype(int) - malignant.image[above].astype(int))
    assert apart.max() <= 1
    assert (benign.image[either] != malignant.image[either]).mean() > 0.5


def test_same_features_same_picture_whatever_the_class(monkeypatch):
    benign, malignant = (rendered(monkeypatch, FAN, nodule(), label) for label in (False, True))
    np.testing.assert_array_equal(benign.image, malignant.image)
    np.testing.assert_array_equal(benign.mask, malignant.mask)


@pytest.mark.parametrize("index", [LINEAR, FAN])
@pytest.mark.parametrize("elongation", [0.6, 1.4])
def test_mask_is_one_nodule_of_the_drawn_shape(monkeypatch, index, elongation):
    made = rendered(monkeypatch, index, nodule(elongation=elongation))
    scan = anatomy.draw_scan(0, index)
    _, pieces = ndimage.label(made.mask)
    assert pieces == 1
    rows, columns = np.nonzero(made.mask)
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height / width == pytest.approx(elongation, rel=0.15)
    depth = generate._pixels_per_depth(scan)
    assert (height * width) ** 0.5 / depth == pytest.approx(scan.nodule_size, rel=0.12)


@pytest.mark.parametrize("index", [LINEAR, FAN])
def test_mask_matches_the_nodule(monkeypatch, index):
    """A cyst is dark where the mask says so, and bright tissue lies around it."""
    made = rendered(monkeypatch, index, nodule(composition="cystic", echo_db=ANECHOIC_DB))
    ring = ndimage.binary_dilation(made.mask, iterations=26) & ~ndimage.binary_dilation(
        made.mask, iterations=14
    )
    assert np.median(made.image[inside(made)]) < 0.4 * np.median(made.image[ring])
    dark = ndimage.uniform_filter(made.image.astype(float), 7) < 0.5 * np.median(made.image[ring])
    pieces, _ = ndimage.label(dark)
    rows, columns = np.nonzero(made.mask)
    cyst = pieces == pieces[int(rows.mean()), int(columns.mean())]
    assert 2 * (cyst & made.mask).sum() / (cyst.sum() + made.mask.sum()) > 0.8


def test_echogenicity_orders_the_grey_inside(monkeypatch):
    levels = (ANECHOIC_DB, -14.0, -8.0, 0.0, 5.0)
    greys = []
    for level in levels:
        made = rendered(monkeypatch, LINEAR, nodule(echo_db=level))
        greys.append(made.image[inside(made)].mean())
    assert np.all(np.diff(greys) > 5)


def test_punctate_foci_are_bright_dots(monkeypatch):
    plain, dotted = (
        rendered(monkeypatch, LINEAR, nodule(echo_db=-14.0, foci=foci))
        for foci in ("none", "punctate")
    )
    brightest = [np.percentile(made.image[inside(made)], 99.5) for made in (plain, dotted)]
    assert brightest[1] > brightest[0] + 30
    assert np.median(dotted.image[inside(dotted)]) == pytest.approx(
        np.median(plain.image[inside(plain)]), abs=8
    )


def test_macrocalcification_casts_a_shadow_and_a_cyst_brightens(monkeypatch):
    def below(features):
        made = rendered(monkeypatch, LINEAR, features)
        rows, columns = np.nonzero(made.mask)
        middle = slice(int(np.percentile(columns, 20)), int(np.percentile(columns, 80)))
        return made.image[rows.max() + 4 : rows.max() + 30, middle].mean(axis=0)

    plain = below(nodule())
    assert (below(nodule(foci="macrocalcification")) - plain).min() < -20
    assert (below(nodule(composition="cystic", echo_db=ANECHOIC_DB)) - plain).mean() > 5


def test_halo_darkens_the_rim(monkeypatch):
    plain, haloed = (rendered(monkeypatch, LINEAR, nodule(halo=halo)) for halo in (False, True))
    rim = ndimage.binary_dilation(plain.mask, iterations=3) & ~plain.mask
    assert haloed.image[rim].mean() < plain.image[rim].mean() - 5
    core = inside(plain, 10)
    assert haloed.image[core].mean() == pytest.approx(plain.image[core].mean(), abs=1)


def test_fan_is_black_outside_and_linear_fills_its_rows():
    made, scan = phantom(0, FAN, False), anatomy.draw_scan(0, FAN)
    corners = made.image[scan.top + 12 : scan.top + 60, 20:40]
    assert corners.max() == 0
    assert (made.image[:, scan.width // 2] > 0).mean() > 0.6
    assert generate._on_screen(scan, np.ones((300, 200), np.float32)).max() == pytest.approx(1.0)


def test_marks_are_only_drawn_where_the_scan_has_them():
    scan = dataclasses.replace(anatomy.draw_scan(0, LINEAR), marks=True)
    black = np.zeros((scan.height, scan.width), np.uint8)
    assert generate._marks(dataclasses.replace(scan, marks=False), black.copy()).max() == 0
    drawn = generate._marks(scan, black.copy())
    assert 20 < (drawn > 0).sum() < 400
    ticks = np.flatnonzero((drawn[:, 2] > 0) & (drawn[:, 8] == 0))
    step = generate._pixels_per_depth(scan) / scan.depth_cm / 2
    assert np.median(np.diff(ticks[::2])) == pytest.approx(step, abs=1.5)


def test_pictures_are_crisp_and_no_two_alike():
    made = [phantom(1, index, index % 3 == 0) for index in range(24)]
    for one in made:
        grey = one.image.astype(float)
        assert ndimage.laplace(grey)[grey > 30].std() > 10
    hashes = [imagehash.phash(Image.fromarray(one.image)) for one in made]
    distances = [a - b for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > 8
    assert np.median(distances) > 24


# Physics.


@pytest.mark.parametrize("axial", [0.8, 1.5])
def test_speckle_of_even_tissue_is_rayleigh(axial):
    rng, lateral = np.random.default_rng(0), np.linspace(1, 3, 400, dtype=np.float32)[:, None]
    envelope = generate._envelope(rng, np.full((400, 500), 2.0, np.float32), axial, lateral)
    assert envelope.dtype == np.float32
    # Rayleigh: mean/SD = sqrt(pi / (4 - pi)) = 1.913, mean square = amplitude squared.
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, rel=0.02)
    assert np.mean(envelope**2) == pytest.approx(4.0, rel=0.05)
    assert np.mean(envelope <= 2.0 * np.sqrt(np.log(2))) == pytest.approx(0.5, abs=0.02)
    assert np.mean(envelope[:60] ** 2) == pytest.approx(np.mean(envelope[-60:] ** 2), rel=0.2)


def test_speckle_is_as_wide_as_the_beam():
    """The field of a Gaussian beam of SD s correlates as exp(-d²/4s²); intensity, as its square."""
    lateral = np.full((600, 1), 2.0, np.float32)
    one = np.ones((600, 600), np.float32)
    power = np.square(generate._envelope(np.random.default_rng(1), one, 1.5, lateral))
    centred = power - power.mean()
    for lag in (1, 2, 4):
        across = np.mean(centred[:, lag:] * centred[:, :-lag]) / centred.var()
        along = np.mean(centred[lag:] * centred[:-lag]) / centred.var()
        assert across == pytest.approx(np.exp(-(lag**2) / (2 * 2.0**2)), abs=0.05)
        assert along == pytest.approx(np.exp(-(lag**2) / (2 * 1.5**2)), abs=0.05)


def test_a_bright_edge_does_not_come_round_on_the_other_side():
    amplitude = np.full((50, 300), 1e-4, np.float32)
    amplitude[:, -5:] = 1.0
    lateral = np.full((50, 1), 3.0, np.float32)
    envelope = generate._envelope(np.random.default_rng(0), amplitude, 1.0, lateral)
    assert envelope[:, :200].max() < 1e-3


def test_even_loss_falls_by_its_decibels_per_depth():
    loss = generate._two_way(np.full((200, 3), 30.0, np.float32))
    np.testing.assert_allclose(loss[[49, 99, 199], 1], [7.5, 15.0, 30.0], rtol=1e-4)
    spot = np.zeros((10, 2), np.float32)
    spot[4, 0] = 50.0
    np.testing.assert_allclose(generate._two_way(spot)[:, 0], [0] * 4 + [5] * 6, rtol=1e-5)
    assert generate._two_way(spot)[:, 1].max() == 0


def test_noise_rises_with_the_depth_compensation():
    scan = dataclasses.replace(anatomy.draw_scan(0, LINEAR), depth_cm=4.0, frequency_mhz=10.0)
    level = generate._noise_level(scan, generate._grid(scan))[:, 0]
    # 0.5 dB/cm/MHz x 10 MHz x 4 cm, there and back.
    assert level[-1] - level[0] == pytest.approx(40.0, rel=0.01)


def test_compression_maps_the_dynamic_range_onto_the_grey_scale():
    scan = dataclasses.replace(anatomy.draw_scan(0, LINEAR), dynamic_range_db=60.0, gain_db=0.0)
    envelope = np.array([0.0, 1.0, 10.0, 1e6], np.float32)
    assert generate._compress(envelope, scan) == pytest.approx([0, 96.9, 181.9, 255], abs=0.1)
    louder = generate._compress(envelope, dataclasses.replace(scan, gain_db=6.0))
    assert louder[1] - 96.9 == pytest.approx(25.5, abs=0.1)


@given(seed=st.integers(0, 1000))
@settings(max_examples=25)
def test_smooth_noise_is_standardised(seed):
    field = anatomy.noise(np.random.default_rng(seed), (120, 160), (30, 40))
    assert field.shape == (120, 160)
    assert field.dtype == np.float32
    assert abs(field.mean()) < 0.15
    assert 0.8 < field.std() < 1.3


# The set on disk.


def test_written_set(tmp_path):
    seen = []
    write_phantoms(str(tmp_path), images=7, malignant=3, seed=2, progress=seen.append)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    with (tmp_path / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "label", "patient_id", "mask", "tirads_points"]
    assert [row["image"] for row in rows] == [f"images/p000{n}.png" for n in range(1, 8)]
    assert [row["mask"] for row in rows] == [f"masks/p000{n}.png" for n in range(1, 8)]
    assert [row["patient_id"] for row in rows] == [f"P000{n}" for n in range(1, 8)]
    assert Counter(row["label"] for row in rows) == {"benign": 4, "malignant": 3}
    for index, row in enumerate(rows):
        made = phantom(2, index, row["label"] == "malignant")
        with Image.open(tmp_path / row["image"]) as image, Image.open(tmp_path / row["mask"]) as m:
            assert image.mode == m.mode == "L"
            np.testing.assert_array_equal(np.asarray(image), made.image)
            np.testing.assert_array_equal(np.asarray(m), np.where(made.mask, 255, 0))
        assert int(row["tirads_points"]) == tirads_points(made.features)
    assert len(open_store(str(tmp_path)).keys("")) == 15


def test_labels_are_shuffled_over_the_numbering(monkeypatch):
    monkeypatch.setattr(generate, "_encode", lambda _: (b"", b""))
    monkeypatch.setattr(generate, "_MOST_PROCESSES", 1)
    write_phantoms("memory://shuffled", images=508, malignant=93, seed=0)
    table = open_store("memory://shuffled").read("labels.csv").decode()
    labels = [row["label"] == "malignant" for row in csv.DictReader(io.StringIO(table))]
    assert sum(labels) == 93
    assert 0.4 < roc_auc_score(labels, range(508)) < 0.6
    assert max(np.diff(np.flatnonzero(labels))) < 60


def test_a_repeat_goes_over_its_own_files_and_writes_the_same(tmp_path):
    write_phantoms(str(tmp_path), images=2, malignant=1)
    first = contents(tmp_path)
    assert len(first) == 5
    write_phantoms(str(tmp_path), images=2, malignant=1)
    assert contents(tmp_path) == first


def test_labels_come_last(tmp_path):
    """A set that was interrupted has no labels, not even those of an earlier one."""

    def stop(done):
        raise KeyboardInterrupt

    write_phantoms(str(tmp_path), images=2, malignant=1)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(str(tmp_path), images=2, malignant=1, progress=stop)
    assert not (tmp_path / "labels.csv").exists()


def test_bytes_do_not_depend_on_the_number_of_processes(monkeypatch):
    tasks = [(0, index, index == 1) for index in range(3)]
    monkeypatch.setattr(generate, "cores", lambda: 1)
    alone = list(generate._encode_all(tasks))
    monkeypatch.setattr(generate, "cores", lambda: 2)
    monkeypatch.setattr(generate, "_WORTH_A_PROCESS", 1)
    assert list(generate._encode_all(tasks)) == alone


@pytest.mark.parametrize(
    "counts",
    [
        {"images": 0, "malignant": 0},
        {"images": 5, "malignant": 6},
        {"images": 5, "malignant": -1},
        {"images": 5, "malignant": 2, "seed": -1},
    ],
)
def test_impossible_counts_are_refused_before_anything_is_written(tmp_path, counts):
    with pytest.raises(InputError, match=f"malignant={counts['malignant']}, seed=") as caught:
        write_phantoms(str(tmp_path), **counts)
    assert f"images={counts['images']}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "labels.csv").write_text("real")
    (tmp_path / "scan.png").write_bytes(b"real")
    with pytest.raises(InputError, match=r"1 other files, scan\.png among them"):
        write_phantoms(str(tmp_path), images=2, malignant=1)
    assert (tmp_path / "labels.csv").read_text() == "real"
