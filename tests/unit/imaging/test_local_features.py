"""Features move with the picture, and mirror and turn with it."""

import os
import subprocess
import sys

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from tests.support.symmetries import seen
from thyro_core.imaging.alignment import align, overlaps
from thyro_core.imaging.local_features import (
    PATTERN,
    PATTERN_NORM,
    PLACE_STEPS,
    SCALE,
    local_features,
    scale_down,
)
from thyro_core.imaging.pattern_symmetry import bring_into_one_view
from thyro_core.imaging.symmetry import SYMMETRIES

DIGEST = """
import hashlib
import numpy as np
from thyro_core.imaging.local_features import local_features
grey = np.random.default_rng(0).integers(0, 256, (24, 30)).astype(np.uint8)
grey = grey.repeat(7, 0).repeat(7, 1)
made = local_features(grey)
print(len(made.places), hashlib.sha256(made.places.tobytes() + made.patterns.tobytes()).hexdigest())
"""


def tissue(seed, height=192, width=192):
    rng = np.random.default_rng(seed)
    field = sum(
        gaussian_filter(rng.normal(size=(height, width)), sigma) * sigma for sigma in (2, 5, 12)
    )
    return np.clip(110 + 40 * field / field.std(), 0, 255).astype(np.uint8)


def test_an_image_is_brought_to_one_area_in_its_shape():
    for shape in ((400, 600), (64, 64), (1000, 200)):
        height, width = scale_down(np.zeros(shape, np.uint8)).shape
        assert abs(height * width / SCALE**2 - 1) < 0.02
        assert abs(height / width / (shape[0] / shape[1]) - 1) < 0.03


def test_descriptions_have_their_norm_and_places_lie_in_the_image():
    made = local_features(tissue(0))
    assert 60 < len(made.places) <= 136
    assert made.patterns.shape == (len(made.places), PATTERN)
    norms = np.linalg.norm(made.patterns.astype(float), axis=1)
    assert np.abs(norms / PATTERN_NORM - 1).max() < 0.1
    places = made.places[:, :2] / PLACE_STEPS
    assert (places >= 0).all()
    assert (places <= 191).all()


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_each_symmetry_of_a_picture_is_that_of_its_descriptions(symmetry):
    grey = tissue(1, 170, 216)
    straight, other = (local_features(g) for g in (grey, seen(grey, symmetry)))
    shared = [align(straight, other, symmetry=k).n_shared for k in SYMMETRIES]
    assert shared[symmetry] > 0.8 * len(straight.places)
    assert max(shared[:symmetry] + shared[symmetry + 1 :]) < 12
    own, theirs = overlaps(straight, other, align(straight, other, symmetry=symmetry), 32)
    levels = [
        g[(y * g.shape[0]).astype(int), (x * g.shape[1]).astype(int)]
        for g, (x, y) in ((grey, own), (seen(grey, symmetry), theirs))
    ]
    assert np.corrcoef(levels[0].ravel(), levels[1].ravel())[0, 1] > 0.9


def test_the_features_of_all_eight_forms_are_brought_into_one_view():
    grey = tissue(3, 170, 216)
    views = []
    for symmetry in SYMMETRIES:
        patterns = local_features(seen(grey, symmetry)).patterns.copy()
        used = bring_into_one_view(patterns)
        assert len(set(used.tolist())) >= 4
        views.append(patterns.astype(np.float32))
    for view in views[1:]:
        nearest = (view @ views[0].T).max(axis=1) / PATTERN_NORM**2
        assert (nearest > 0.95).mean() > 0.75


@pytest.mark.parametrize(("top", "left"), [(0, 0), (20, 31)])
def test_alignment_undoes_a_crop(top, left):
    grey = tissue(2, 240, 240)
    one, other = (local_features(g) for g in (grey[:192, :192], grey[top:][:192, left:][:, :192]))
    alignment = align(one, other)
    assert alignment.symmetry == 0
    assert abs(alignment.turn - 1) < 0.01
    assert abs(alignment.shift + complex(left, top)) < 1
    own, theirs = overlaps(one, other, alignment, 32)
    assert np.abs((own - theirs) * 192 - np.array([left, top])[:, None, None]).max() < 1.5


def test_strangers_share_few_features():
    shared = [
        align(local_features(tissue(k)), local_features(tissue(k + 50))).n_shared for k in range(8)
    ]
    assert max(shared) < 8


def test_another_instruction_set_finds_the_same_features():
    """OpenCV without its vector code: whole numbers leave nothing to the order of sums."""
    plain = {"OPENCV_CPU_DISABLE": "AVX2,AVX,FP16,FMA3,AVX512_SKX,SSE4.2", "OPENCV_IPP": "disabled"}
    digests = [
        subprocess.run(
            [sys.executable, "-c", DIGEST], env=os.environ | extra, capture_output=True, text=True,
            check=True,
        ).stdout
        for extra in ({}, plain)
    ]  # fmt: skip
    assert digests[0] == digests[1]
    assert int(digests[0].split()[0]) > 50
