"""A screening's images: the right verdict for each, the same each time, and no error whatever."""

import hashlib
import io
import warnings
from collections import Counter
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import SecretStr, ValidationError
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless
from scipy import ndimage

from tests.support.dicoms import PERSON, dataset, dicom, encapsulated, region, saved, speckle
from thyro_core.imaging.quality import grey_statistics, sharpness
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.reader import IMAGE_REASONS, ScreeningImage, read_screening_images

RULES = ScreeningRules()
MAKE = Pseudonymiser(SecretStr("correct horse battery staple"))
GREY = speckle(96, 128)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def read(data: bytes, **rules: Any) -> list[ScreeningImage]:
    return read_screening_images(data, ScreeningRules(**rules), MAKE)


def one(data: bytes, **rules: Any) -> ScreeningImage:
    (image,) = read(data, **rules)
    return image


def coloured(share: float) -> np.ndarray:
    """The speckle with a red box over a share of it, as colour flow draws."""
    rgb = np.repeat(GREY[:, :, None], 3, axis=2)
    rows = round(share * len(rgb))
    rgb[:rows] = rgb[:rows] // 3 + np.array([160, 10, 10], np.uint8)
    return rgb


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "DICOM"])
def test_a_good_image_is_fit_to_be_scored(kind: str) -> None:
    data = dicom(GREY) if kind == "DICOM" else encoded(GREY, kind)
    image = one(data)
    assert image.image_id == hashlib.sha256(data).hexdigest()
    assert (image.reason, image.detail, image.frame) == (None, None, 0)
    assert image.grey is not None
    np.testing.assert_array_equal(image.grey, GREY)
    assert (image.mean, image.sd) == grey_statistics(GREY)
    assert image.sharpness == sharpness(GREY)
    assert (image.overlay_share, image.width, image.height) == (0, 128, 96)
    assert image.patient_id == (MAKE("MRN-774411", "Szpital-Wolski") if kind == "DICOM" else None)
    assert image.burned_in is None, "the file says nothing of it"
    assert image.text == ()


def test_jpeg() -> None:
    image = one(encoded(GREY, "JPEG", quality=95))
    assert image.reason is None
    assert image.grey is not None
    np.testing.assert_allclose(image.grey, GREY.astype(int), atol=12)


VERDICTS: list[tuple[str, str | None, str | None, bytes]] = [
    ("empty", "undecodable", "the file is empty", b""),
    ("text", "undecodable", "not a PNG", b"patient Zofia Wronska"),
    ("cut png", "undecodable", "truncated: the file ends", encoded(GREY)[:-2000]),
    ("small", "too_small", "63 x 96 pixels; a side needs at least min_side", encoded(GREY[:, :63])),
    ("small and blank", "too_small", "10 x 10", encoded(np.zeros((10, 10), np.uint8))),
    ("blank", "not_ultrasound", "standard deviation", encoded(np.zeros((96, 96), np.uint8))),
    ("flow", "doppler_colour", "share of coloured pixels 0.10", encoded(coloured(0.1))),
    ("photo", "not_ultrasound", "share of coloured pixels 0.60", encoded(coloured(0.6))),
    ("callipers", None, None, encoded(coloured(0.011))),
    ("blurred", "blurred", "sharpness 0.0", encoded(
        (3 * (ndimage.gaussian_filter(GREY.astype(float), 6) - 30)).clip(0, 255).astype(np.uint8))),
    ("two pages", "too_large", "more frames than max_frames = 1", None),
    ("ct", "not_ultrasound", "CT Image", dicom(GREY, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")),
    ("spectral", "doppler_colour", "Doppler", dicom(
        GREY, SequenceOfUltrasoundRegions=[region(3, 3, (0, 0, 9, 9))])),
    ("cropped away", "too_small", "30 x 20 pixels", dicom(
        GREY, SequenceOfUltrasoundRegions=[region(1, 1, (0, 0, 29, 19))])),
    ("dicom flow", "doppler_colour", "coloured pixels 0.10", dicom(coloured(0.1))),
    ("dicom blank", "not_ultrasound", "deviation", dicom(np.zeros((96, 96), np.uint8))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "reason", "detail", "data"), VERDICTS)
def test_verdicts(name: str, reason: str | None, detail: str | None, data: bytes | None) -> None:
    if data is None:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.stack([GREY, GREY]))
        data = buffer.getvalue()
    image = one(data)
    assert image.reason == reason
    assert (image.grey is None) == (reason is not None)
    if detail is None:
        assert image.detail is None
    else:
        assert detail in str(image.detail)
    measured = reason not in {"undecodable", "too_large"} and "CT" not in str(detail)
    measured = measured and name != "spectral"
    for figure in ("mean", "sd", "sharpness", "overlay_share", "width", "height"):
        assert (getattr(image, figure) is not None) == measured, figure


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (2, 2), (15, 17), (8, 9000)])
def test_tiny_pictures_have_figures_too(shape: tuple[int, int]) -> None:
    grey = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    for data in (encoded(grey), dicom(grey)):
        image = one(data)
        assert (image.reason, image.width, image.height) == ("too_small", shape[1], shape[0])
        assert image.mean == pytest.approx(grey.mean())
        assert image.sharpness is not None
        assert np.isfinite(image.sharpness)


def test_bounds_are_those_of_the_rules() -> None:
    data = encoded(GREY)
    found = one(data, max_pixels=12287)
    assert found.reason == "too_large"
    assert found.detail == "128 x 96 pixels, more than max_pixels = 12287"
    assert one(data, max_pixels=12288).reason is None
    for kind in (data, dicom(GREY)):
        found = one(kind, max_bytes=len(kind) - 1)
        assert found.reason == "too_large"
        assert found.detail == f"{len(kind)} bytes, more than max_bytes = {len(kind) - 1}"
        assert found.patient_id is None
        assert one(kind, max_bytes=len(kind)).reason is None
    assert one(data, min_side=97).reason == "too_small"
    assert one(data, min_side=96).reason is None
    focus = sharpness(GREY)
    assert one(data, blur_bound=focus + 1e-6).reason == "blurred"
    assert one(data, blur_bound=focus).reason is None
    assert one(encoded(coloured(0.1)), overlay_bound=0.12).reason is None
    assert one(encoded(coloured(0.011)), overlay_bound=0.001).reason == "doppler_colour"


def test_frames_of_a_clip_are_images_of_their_own() -> None:
    clip = np.stack([speckle(96, 128, seed) for seed in range(10)])
    clip[5] = 0
    data = dicom(clip, BurnedInAnnotation="YES")
    found = read(data, frames_per_clip=5)
    assert [image.frame for image in found] == [1, 3, 5, 7, 9]
    file_id = hashlib.sha256(data).hexdigest()
    assert [image.image_id for image in found] == [
        hashlib.sha256(f"{file_id}/{frame}".encode()).hexdigest() for frame in (1, 3, 5, 7, 9)
    ]
    assert [image.reason for image in found] == [None, None, "not_ultrasound", None, None]
    assert {image.patient_id for image in found} == {MAKE("MRN-774411", "Szpital-Wolski")}
    assert all(image.burned_in for image in found)
    # However many frames are taken, a frame keeps its id.
    everything = {image.frame: image.image_id for image in read(data, frames_per_clip=100)}
    assert len(everything) == 10
    assert all(everything[image.frame] == image.image_id for image in found)
    (single,) = read(data, frames_per_clip=1)
    assert everything[single.frame] == single.image_id


def test_a_clip_that_is_refused_whole_is_one_image() -> None:
    data = dicom(np.stack([GREY] * 5), SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    image = one(data)
    assert image.image_id == hashlib.sha256(data).hexdigest()
    assert (image.reason, image.frame) == ("not_ultrasound", 0)


def test_contents_decide_what_a_file_is() -> None:
    for data in (encoded(GREY), dicom(GREY)):
        (image,) = read_screening_images(data, RULES, MAKE)
        assert image.reason is None
        assert "Wronska" not in repr(image)


def test_without_a_key_no_id_leaves() -> None:
    make = Pseudonymiser(None)
    (image,) = read_screening_images(dicom(GREY), RULES, make)
    assert image.patient_id is None
    assert image.reason is None
    assert make.note is not None


def test_every_reason_occurs_and_no_other() -> None:
    seen = {reason for _, reason, _, _ in VERDICTS} - {None}
    assert seen == set(IMAGE_REASONS)


def test_the_rules_are_a_form() -> None:
    for name, field in ScreeningRules.model_fields.items():
        assert field.description, name
        assert field.description.endswith((".", "off.", "any."))
    assert ScreeningRules(**ScreeningRules().model_dump()) == RULES
    for name, value in {
        "min_side": 7, "max_pixels": 0, "max_bytes": 0, "max_clip_frames": 0, "frames_per_clip": 0,
        "blur_bound": -1, "overlay_bound": 1.1, "outlier_quantile": 0, "review_sds": -1,
        "unknown": 1,
    }.items():  # fmt: skip
        with pytest.raises(ValidationError):
            ScreeningRules(**{name: value})
    with pytest.raises(ValidationError):
        RULES.min_side = 8
    assert (RULES.outlier_quantile, RULES.review_sds, RULES.frames_per_clip) == (0.99, 1.0, 8)
    ends = ScreeningRules(max_pixels=10**9, max_bytes=2 * 10**9, min_side=4096)
    assert ends.max_pixels == 10**9


# Whatever the bytes.


@cache
def seeds() -> list[bytes]:
    """One file of each kind that is read, small so that damage meets its headers."""
    grey = speckle(64, 64)
    rgb = np.stack([grey, grey[::-1], grey.T], axis=-1)
    rle = dataset(np.stack([grey, grey]))
    rle.compress(RLELossless)
    window = {"WindowCenter": 90, "WindowWidth": 80, "RescaleSlope": 2, "RescaleIntercept": -3}
    regions = [region(1, 1, (0, 0, 63, 63)), region(5, 0xE, (0, 0, 3, 3))]
    palette = dataset(grey, PhotometricInterpretation="PALETTE COLOR")
    for name in ("Red", "Green", "Blue"):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 8])
        setattr(palette, f"{name}PaletteColorLookupTableData", bytes(range(256)))
    j2k = encoded(grey, "JPEG2000", no_jp2=True)
    return [
        encoded(grey), encoded(rgb), encoded(grey.astype(np.uint16) * 99),
        encoded(grey, "JPEG"), encoded(rgb, "JPEG", progressive=True),
        encoded(grey, "TIFF"), encoded(rgb, "TIFF", compression="tiff_lzw"),
        encoded(grey, "TIFF", compression="jpeg"), encoded(rgb, "BMP"), encoded(grey, "BMP"),
        dicom(grey), dicom(grey, "1.2.840.10008.1.2"), dicom(grey, "1.2.840.10008.1.2.2"),
        dicom(rgb, PlanarConfiguration=1), dicom(grey.astype(np.uint16), **window),
        dicom(grey.astype(np.int16), BitsStored=12, HighBit=11),
        dicom(grey, SequenceOfUltrasoundRegions=regions, BurnedInAnnotation="YES"),
        dicom(np.stack([grey] * 4)), saved(rle), saved(palette),
        saved(dataset(grey, "1.2.840.10008.1.2"), preamble=False),
        encapsulated(grey, JPEGBaseline8Bit, [encoded(grey, "JPEG")]),
        encapsulated(rgb, JPEGBaseline8Bit, [encoded(rgb, "JPEG")],
                     PhotometricInterpretation="YBR_FULL_422"),
        encapsulated(np.stack([grey] * 2), JPEG2000Lossless, [j2k, j2k]),
        dicom(rgb, "1.2.840.10008.1.2.1.99"),
    ]  # fmt: skip


EXTREMES = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\x80", b"\xff\xff")


def damaged(kind: int, seed: int) -> bytes:
    """A good file, cut, flipped, spliced or overwritten in a few places.

    Places are drawn evenly, from the headers as often as from the whole: hypothesis itself prefers
    the first bytes, which end most readers at once.
    """
    rng = np.random.default_rng(seed)
    data = bytearray(seeds()[kind])
    has_preamble = data[128:132] == b"DICM"
    for _ in range(rng.integers(1, 5)):
        first = 132 if has_preamble else 4
        last = min(len(data), first + 1500) if rng.random() < 0.6 else len(data)
        at = int(rng.integers(first, max(last, first + 1)))
        length = int(rng.integers(1, 24))
        match rng.choice(["cut", "flip", "flip", "write", "write", "remove", "repeat", "extreme"]):
            case "cut":
                del data[int(rng.integers(at, max(len(data), at + 1))) :]
            case "flip" if at < len(data):
                data[at] ^= 1 << int(rng.integers(8))
            case "write":
                data[at : at + length] = rng.bytes(length)
            case "remove":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length]
            case _:
                extreme = EXTREMES[rng.integers(len(EXTREMES))]
                data[at : at + len(extreme)] = extreme
    return bytes(data)


KINDS, SEEDS = st.integers(0, 24), st.integers(0, 2**32 - 1)


def survives(data: bytes) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        found = read(data)
    assert found
    for image in found:
        assert image.reason in {None, *IMAGE_REASONS}
        assert (image.grey is None) == (image.reason is not None)
        assert image.detail is not None or image.reason is None
        assert image.detail is None or len(image.detail) < 200
        if image.grey is not None:
            assert image.grey.dtype == np.uint8
            assert image.grey.shape == (image.height, image.width)
            assert image.grey.flags.owndata or image.grey.base is not None
    shown = "".join(
        str(getattr(image, field.name))
        for image in found
        for field in fields(image)
        if field.name != "grey"
    ) + "".join(str(warning.message) for warning in warned)
    assert not [text for text in PERSON.values() if text in shown]


@settings(max_examples=300)
@given(KINDS, SEEDS)
def test_no_damage_raises(kind: int, seed: int) -> None:
    survives(damaged(kind, seed))


@pytest.mark.slow
@settings(max_examples=10_000)
@given(KINDS, SEEDS)
def test_no_damage_raises_ten_thousand_times(kind: int, seed: int) -> None:
    survives(damaged(kind, seed))


def test_the_damage_reaches_every_part_of_the_readers() -> None:
    """Else the tests above would only show that a broken first byte is refused."""
    found = Counter(
        image.reason for seed in range(150) for image in read(damaged(seed % len(seeds()), seed))
    )
    assert len(seeds()) == 25
    assert found[None] >= 20
    assert found["undecodable"] >= 20
    assert found["not_ultrasound"] >= 10


@settings(max_examples=100)
@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM",
                     b"\0" * 128 + b"DICM", b"\x08\0", b"\x02\0", b"\0\x08"]),
    st.binary(max_size=400),
)  # fmt: skip
def test_no_bytes_raise(head: bytes, tail: bytes) -> None:
    survives(head + tail)


def test_the_undamaged_seeds_are_good_files() -> None:
    """Else the damage above would be done to what is refused at once."""
    reasons = [{image.reason for image in read(data)} for data in seeds()]
    assert all(reason <= {None, "not_ultrasound"} for reason in reasons)
    assert reasons.count({None}) >= 16


def test_the_same_bytes_give_the_same_answer() -> None:
    for data in seeds():
        for one_time, other in zip(read(data), read(data), strict=True):
            for field in fields(one_time):
                np.testing.assert_array_equal(
                    getattr(one_time, field.name), getattr(other, field.name)
                )


@pytest.mark.parametrize("depth", [50, 5000])
def test_nested_sequences_do_not_exhaust_the_stack(depth: int) -> None:
    """Undefined-length sequences within sequences, as deep as a file likes."""
    good = dicom(GREY, "1.2.840.10008.1.2")
    at = good.index(b"\x28\x00\x02\x00")
    nest = (b"\x18\x00\x11\x60\xff\xff\xff\xff" + b"\xfe\xff\x00\xe0\xff\xff\xff\xff") * depth
    image = one(good[:at] + nest + good[at:])
    assert image.reason == "undecodable"
