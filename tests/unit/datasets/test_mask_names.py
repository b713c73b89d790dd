"""Which mask belongs to which image, told by names alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thyro_core.datasets.mask_names import assign_masks, is_mask


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a_mask.png", True), ("d/a_mask_12.PNG", True), ("a_MASK.png", True),
        ("masks/a.png", True), ("d/Mask/e/a.png", True), ("trainval-mask/a.png", True),
        ("Test_Masks/d/a.png", True), ("masked/a.png", False), ("mask-less/a.png", False),
        ("mask.png", False), ("a_mask_b.png", False), ("_mask.png", False),
        ("unmasks/a.png", False),
        ("a.png", False),
    ],
)  # fmt: skip
def test_names_of_masks(name, expected):
    assert is_mask(name) is expected


@pytest.mark.parametrize(
    ("masks", "images", "expected", "lost"),
    [
        (["b/x_mask.png", "b/x_mask_1.png"], ["b/x.png"], {"b/x.png": 2}, 0),
        # Another folder's image of that name has its own masks.
        (["b/x_mask.png"], ["b/x.png", "m/x.png"], {"b/x.png": 1}, 0),
        (["m/x_mask.png"], ["b/x.png"], {}, 1),
        (["masks/x.png"], ["images/x.jpg"], {"images/x.jpg": 1}, 0),
        (["masks/x_mask.png"], ["x.png"], {"x.png": 1}, 0),
        (["set/masks/x.png"], ["set/images/x.png", "other/x.png"], {"set/images/x.png": 1}, 0),
        (["masks/x.png"], ["benign/x.png", "malignant/x.png"], {}, 1),
        (
            ["masks/benign/x.png", "masks/malignant/x.png"],
            ["benign/x.png", "malignant/x.png"],
            {"benign/x.png": 1, "malignant/x.png": 1},
            0,
        ),
        (["masks/y.png"], ["x.png"], {}, 1),
        # As TN3K has them.
        (
            ["trainval-mask/1.jpg", "test-mask/1.jpg"],
            ["trainval-image/1.jpg", "test-image/1.jpg"],
            {"trainval-image/1.jpg": 1, "test-image/1.jpg": 1},
            0,
        ),
        (["a-mask/1.png"], ["b-image/1.png"], {}, 1),
    ],
)
def test_masks_find_their_image(masks, images, expected, lost):
    found, without = assign_masks(masks, images, {})
    assert {image: len(names) for image, names in found.items()} == expected
    assert without == lost


def test_a_mask_that_the_set_gives_counts_alone():
    masks = ["m/outline.png", "x_mask.png", "y_mask.png"]
    found, lost = assign_masks(
        masks, ["x.png", "y.png"], {"x.png": ("m/outline.png",), "y.png": ()}
    )
    assert found == {"x.png": ("m/outline.png",), "y.png": ("y_mask.png",)}
    assert lost == 0


names = st.sampled_from(
    ["a.png", "d/a.png", "e/a.jpg", "a_mask.png", "d/a_mask_1.png", "masks/a.png", "masks/d/a.png"]
)


@given(st.lists(names, unique=True), st.randoms())
def test_the_order_of_files_leaves_no_trace_and_no_mask_serves_two(files, shuffler):
    masks = [name for name in files if is_mask(name)]
    images = [name for name in files if not is_mask(name)]
    found, lost = assign_masks(masks, images, {})
    used = [mask for names in found.values() for mask in names]
    assert len(used) == len(set(used)) == len(masks) - lost
    shuffled = assign_masks(
        shuffler.sample(masks, len(masks)), shuffler.sample(images, len(images)), {}
    )
    assert shuffled == (found, lost)
