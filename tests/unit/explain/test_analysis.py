"""What a job says of its maps: the right rows, the right figures, and the network left alone."""

import copy
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from thyro_core.config import StudyConfig
from thyro_core.explain import faithfulness
from thyro_core.explain.analysis import (
    TrainedNetwork,
    explanation_tables,
    map_checks,
    network_checks,
    network_sample,
)
from thyro_core.explain.features import feature_rows
from thyro_core.explain.localisation import mark_checks, nodule_checks
from thyro_core.explain.maps import stored_maps
from thyro_core.explain.regions import SHARES
from thyro_core.imaging.annotations import annotation_mask
from thyro_core.tables import schemas
from thyro_core.tables.cam_columns import BORDER_SHARE, CASCADE_COLUMNS, CURVE_STEPS
from thyro_core.training.batches import IMAGENET_MEAN, IMAGENET_SD, Examples, stream_seed
from thyro_core.training.models import build

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
KEYS = {"study_id": "s0", "split": 1, "architecture": "resnet18"}
SIDE, N, SEED = 64, 6, 7
IDS = [f"{value:064x}" for value in (9, 3, 5, 4, 8, 7)]
LABELS = [0, 0, 1, 0, 1, 1]
GROUPS = ["a", "b", "c", "d", "e", "f"]
ASPECTS = [1.0, 0.63, 0.63, 0.75, 1.0, 1.5]
CONFIG = StudyConfig(image_size=SIDE, trust_images=2, architectures=("resnet18",))


def half(side=100):
    mask = np.zeros((side, side), dtype=np.bool_)
    mask[:, : side // 2] = True
    return mask


@pytest.fixture(scope="module")
def network():
    pixels = np.random.default_rng(0).integers(0, 100, (N + 2, SIDE, SIDE), dtype=np.uint8)
    pixels[3, 20:30, 31] = 255
    examples = Examples(pixels, np.array([1, 3, 5, 7, 2, 0]), torch.tensor(LABELS))
    model = build("resnet18", SIDE, 1).eval()
    return TrainedNetwork(
        model,
        "resnet18",
        CPU,
        examples,
        IDS,
        [None, half(), None, None, half(), None],
        GROUPS,
        ASPECTS,
    )


@pytest.fixture(scope="module")
def maps():
    maps = np.random.default_rng(1).random((N, 2, 2, 2), dtype=np.float32) * 1e-5
    maps[3] = 0
    return maps


@pytest.fixture(scope="module")
def tables(network, maps):
    return explanation_tables(KEYS, network, maps, CONFIG, seed=SEED)


@pytest.fixture(scope="module")
def cams(tables):
    return tables["cams"]


def malignant(cams):
    return stored_maps(cams.filter(pa.array([False, True] * N)))


def test_all_tables_are_whole_and_registered(tables):
    assert list(tables) == ["cams", "cam_features", "cam_trust"]
    for name, table in tables.items():
        assert table.schema.equals(schemas.TABLES[name].schema, check_metadata=True)
        for key, value in KEYS.items():
            assert set(table[key].to_pylist()) == {value}
    trust = tables["cam_trust"].to_pylist()
    assert [(row["image_id"], row["label"]) for row in trust] == list(zip(IDS, LABELS, strict=True))
    features = tables["cam_features"].select(["threshold", "image_id"]).to_pylist()
    assert [tuple(row.values()) for row in features] == [
        (share, image_id) for share in SHARES for image_id in sorted(IDS)
    ]


def test_features_are_those_of_the_stored_maps(tables, network, cams):
    """Whoever reads the maps and the pack gets the same features, float16 and all."""
    found = {(row["image_id"], row["threshold"]): row for row in tables["cam_features"].to_pylist()}
    for i, cam in enumerate(malignant(cams)):
        grey = network.examples.pixels[network.examples.rows[i]]
        for row in feature_rows(IDS[i], LABELS[i], cam, grey, height_to_width=ASPECTS[i]):
            stored = found[IDS[i], row["threshold"]]
            assert repr(row) == repr({name: stored[name] for name in row})


def test_nulls_say_what_was_not_done_and_nan_what_is_undefined(tables):
    rows = tables["cam_trust"].to_pylist()
    nodule = [name for name in rows[0] if name.startswith("nodule_")]
    assert "nodule_aspect" in nodule
    checked = [*CASCADE_COLUMNS, "deletion", "insertion", "deletion_random", "insertion_random"]
    sample = network_sample(IDS, LABELS, 2, SEED)
    for i, row in enumerate(rows):
        assert {row[name] is None for name in nodule} == {i not in {1, 4}}
        assert {row[name] is None for name in checked} == {i not in sample}
        assert row["is_empty"] == (i == 3)
        assert math.isnan(row["border_energy"]) == math.isnan(row["mark_energy"]) == (i == 3)
    # Image 3 is the only one with a mark.
    assert [row["mark_area"] > 0 for row in rows] == [False, True, False, False, False, False]
    assert all(math.isnan(row["mark_energy_permuted"]) for row in rows), "it has no partner"
    assert {row["border_area"] for row in rows} == {1 - (1 - 2 * BORDER_SHARE) ** 2}


def test_an_empty_map_in_the_sample_is_undefined_but_its_chance_is_not(network, maps, cams):
    (figures,) = network_checks(network, malignant(cams), [3], SEED).values()
    undefined = {name for name, value in figures.items() if math.isnan(value)}
    assert undefined == {*CASCADE_COLUMNS, "deletion", "insertion"}
    config = CONFIG.model_copy(update={"trust_images": N})
    rows = explanation_tables(KEYS, network, maps, config, seed=SEED)
    assert rows["cam_trust"]["deletion"].null_count == 0


def test_border_figures_by_hand():
    cam = np.array([[3, 1], [0, 0]], dtype=np.float32)
    figures = map_checks(cam, np.zeros((50, 50), bool))
    assert figures["mark_energy"] == figures["mark_area"] == 0
    # All energy is in the upper half; the frame takes 0.2 of its first cells' sides.
    assert figures["border_energy"] == pytest.approx(1 - 0.8 * 0.8)


def test_the_nodule_columns_are_those_of_all_maps_and_masks(tables, network, cams):
    rows = tables["cam_trust"].to_pylist()
    expected = nodule_checks(malignant(cams), network.masks, GROUPS, CONFIG.cam_share)
    for row, values in zip(rows, expected, strict=True):
        assert repr({name: row[name] for name in values}) == repr(values)


def test_a_nodule_s_proportions_are_those_of_its_image(tables):
    """Half a square is twice as high as wide; the image's 0.63 takes that to 1.26."""
    rows = tables["cam_trust"].to_pylist()
    found = [row["nodule_aspect"] for row in rows]
    assert found == [None, pytest.approx(2 * 0.63), None, None, pytest.approx(2 * 1.0), None]
    assert [row["nodule_tallest"] for row in rows] == found


@pytest.mark.parametrize("is_everywhere", [True, False])
def test_marks_at_one_place_in_every_image_are_in_the_baselines_too(is_everywhere):
    """Maps that rest on marks alone lead other images' maps unless all have the same place."""
    covers = np.zeros((4, 4, 4))
    for i in range(4):
        covers[i, 0, 0 if is_everywhere else i] = 1.0
    rows = mark_checks(covers.astype(np.float32), covers, GROUPS[:4])
    energy, area = 1.0, 1 / 16
    for row in rows:
        assert row["mark_energy_permuted"] == (energy if is_everywhere else 0)
        assert row["mark_energy_mean_map"] == (energy if is_everywhere else 0)
    assert energy > area


def test_marks_of_other_images_are_the_baseline_of_marks(network, maps):
    pixels = np.zeros_like(network.examples.pixels)
    for place in range(N + 2):
        pixels[place, 20:30, 5 + 6 * place] = 255
    examples = replace(network.examples, pixels=pixels)
    marked = replace(network, examples=examples)
    own = explanation_tables(KEYS, marked, maps, CONFIG, seed=SEED)
    rows = own["cam_trust"].to_pylist()
    greys = [pixels[row] for row in examples.rows]
    covers = faithfulness.cell_cover(np.stack([annotation_mask(grey) for grey in greys]), 2, 2)
    expected = mark_checks(malignant(own["cams"]), covers, GROUPS)
    assert [row["mark_area"] > 0 for row in rows] == [True] * N
    for row, values in zip(rows, expected, strict=True):
        assert repr({name: row[name] for name in values}) == repr(values)
    assert sum(math.isnan(values["mark_energy_mean_map"]) for values in expected) == 1


def plain_probability(model, image):
    """Of one grey image, 0 to 1, spelled out."""
    channels = [(image - m) / s for m, s in zip(IMAGENET_MEAN, IMAGENET_SD, strict=True)]
    batch = torch.from_numpy(np.stack(channels)[None].astype(np.float32))
    with torch.no_grad():
        benign, wicked = model(batch)[0].double().tolist()
    return 1 / (1 + math.exp(benign - wicked))


def plain_area(model, image, gone, cam):
    """Trapezia under the score while `image` turns into `gone`, highest values first."""
    large = np.asarray(Image.fromarray(cam).resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    order = np.argsort(-large.ravel(), kind="stable")
    scores, shares = [], []
    for step in range(CURVE_STEPS + 1):
        count = SIDE * SIDE * step // CURVE_STEPS
        pixels = image.copy().ravel()
        pixels[order[:count]] = gone.ravel()[order[:count]]
        scores.append(plain_probability(model, pixels.reshape(SIDE, SIDE)))
        shares.append(count / SIDE**2)
    return sum(
        (shares[i + 1] - shares[i]) * (scores[i] + scores[i + 1]) / 2 for i in range(CURVE_STEPS)
    )


def test_curves_against_a_plain_loop(network, cams):
    i = 4
    cam = malignant(cams)[i]
    (figures,) = network_checks(network, malignant(cams), [i], SEED).values()
    image = network.examples.pixels[network.examples.rows[i]].astype(np.float32) / 255
    mean = np.full_like(image, image.mean())
    blurred = gaussian_filter(image, 0.05 * SIDE, mode="nearest")
    chance = np.random.default_rng(stream_seed(SEED, 0xCA4, int(IDS[i][:15], 16)))
    for suffix, order in (("", cam), ("_random", chance.random((2, 2), dtype=np.float32))):
        expected = plain_area(network.model, image, mean, order)
        assert figures[f"deletion{suffix}"] == pytest.approx(expected, abs=1e-6)
        expected = plain_area(network.model, blurred, image, order)
        assert figures[f"insertion{suffix}"] == pytest.approx(expected, abs=1e-6)
    assert figures["deletion"] != figures["deletion_random"]


def test_correlations_of_the_cascade_are_means_over_both_draws(network, cams):
    maps, sample = malignant(cams), [0, 2, 5]
    found = network_checks(network, maps, sample, SEED)
    image = network.examples.pixels[network.examples.rows[2]]
    grey = torch.from_numpy(image)[None, None].float() / 255
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_SD))
    seed = stream_seed(SEED, 0xCA3, 0)
    stages = faithfulness.cascade_maps(network.model, "resnet18", (grey - mean) / sd, seed)
    for column, stage in zip(CASCADE_COLUMNS, stages, strict=True):
        draws = [faithfulness.rank_correlations(maps[2:3], stage[:, k])[0] for k in (0, 1)]
        draws = [value for value in draws if np.isfinite(value)]
        expected = np.mean(draws) if draws else math.nan
        assert found[2][column] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert list(found) == sample


def test_the_network_and_torchs_generators_stay_as_they_are(network, maps, cams):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    weights = copy.deepcopy(network.model.state_dict())
    first = explanation_tables(KEYS, network, maps, CONFIG, seed=SEED)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(
        torch.equal(value, weights[name]) for name, value in network.model.state_dict().items()
    )
    assert all(parameter.grad is None for parameter in network.model.parameters())
    torch.manual_seed(6)
    again = explanation_tables(KEYS, network, maps, CONFIG, seed=SEED)
    for name, table in first.items():
        assert repr(table.to_pylist()) == repr(again[name].to_pylist())
    ours, others = (network_checks(network, malignant(cams), [0], seed) for seed in (1, 2))
    assert ours[0]["deletion_random"] != others[0]["deletion_random"]
    assert ours[0]["deletion"] == others[0]["deletion"]


def test_pixels_in_a_devices_memory_give_the_same(network, maps, tables):
    examples = network.examples
    there = Examples(torch.from_numpy(examples.pixels), examples.rows, examples.labels)
    moved = replace(network, examples=there)
    found = explanation_tables(KEYS, moved, maps, CONFIG, seed=SEED)
    for name, table in found.items():
        assert repr(table.to_pylist()) == repr(tables[name].to_pylist())


def test_off_is_off(network, maps, monkeypatch):
    monkeypatch.setattr(faithfulness, "cascade_maps", None)
    off = CONFIG.model_copy(update={"trust_images": 0})
    trust = explanation_tables(KEYS, network, maps, off, seed=SEED)["cam_trust"]
    assert trust["deletion_random"].null_count == trust["cascade_1"].null_count == N


def test_without_images_the_tables_are_empty(network):
    none = Examples(
        network.examples.pixels, np.empty(0, np.int64), torch.empty(0, dtype=torch.long)
    )
    nothing = TrainedNetwork(network.model, "resnet18", CPU, none, [], [], [], [])
    maps = np.empty((0, 2, 2, 2), np.float32)
    found = explanation_tables(KEYS, nothing, maps, CONFIG, seed=SEED)
    assert [table.num_rows for table in found.values()] == [0, 0, 0]


@given(st.lists(st.integers(0, 1), max_size=12), st.integers(0, 14), st.randoms())
def test_the_sample_is_of_both_classes_and_does_not_depend_on_order(labels, n, shuffler):
    ids = [f"{(i * 7919) % 1009:04x}" for i in range(len(labels))]
    found = network_sample(ids, labels, n, SEED)
    assert found == sorted(set(found))
    assert len(found) == min(n, len(labels))
    counts = [sum(labels[i] == of for i in found) for of in (0, 1)]
    rest = [sum(label == of for label in labels) - counts[of] for of in (0, 1)]
    assert abs(counts[0] - counts[1]) <= 1 or 0 in rest
    order = shuffler.sample(range(len(labels)), len(labels))
    again = network_sample([ids[i] for i in order], [labels[i] for i in order], n, SEED)
    assert {ids[order[i]] for i in again} == {ids[i] for i in found}


def test_each_run_draws_its_own_images_and_every_image_has_the_same_chance():
    ids, labels = [f"{i:02x}" for i in range(20)], [0] * 12 + [1] * 8
    counts = np.zeros(20)
    for seed in range(600):
        counts[network_sample(ids, labels, 4, seed)] += 1
    expected = np.array([2 / 12] * 12 + [2 / 8] * 8) * 600
    assert (np.abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
