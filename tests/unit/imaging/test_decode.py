"""Decoding: every kind of file that is promised, and nothing but a reason for the others."""

import io
import struct
import tracemalloc
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from thyro_core.config import IngestConfig
from thyro_core.imaging.decode import DecodedImage, TooLargeError, UndecodableError, decode, resize

RULES = IngestConfig()
HEIGHT, WIDTH = 40, 56
RAMP = (np.arange(HEIGHT)[:, None] * 4 + np.arange(WIDTH)[None, :]).astype(np.uint8)
COLOURS = np.stack([RAMP, np.roll(RAMP, 11, axis=0), RAMP[::-1]], axis=-1)
GREY_OF_COLOURS = COLOURS @ np.array([0.299, 0.587, 0.114])


def saved(image: Image.Image | np.ndarray, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    source = image if isinstance(image, Image.Image) else Image.fromarray(image)
    source.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def assert_near(found: DecodedImage, expected: np.ndarray, within: float) -> None:
    assert found.grey.dtype == np.uint8
    assert found.grey.shape == expected.shape
    assert np.abs(found.grey.astype(float) - expected).max() <= within


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_grey_is_exact(kind: str) -> None:
    found = decode(saved(RAMP, kind), RULES)
    assert np.array_equal(found.grey, RAMP)
    assert (found.overlay_share, found.bits) == (0.0, 8)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "jpeg"])
def test_compressed_tiff(compression: str) -> None:
    within = 6 if compression == "jpeg" else 0
    assert_near(decode(saved(RAMP, "TIFF", compression=compression), RULES), RAMP, within)


def test_tiled_tiff_and_bigtiff() -> None:
    assert np.array_equal(decode(tiff(RAMP, tile=(16, 16)), RULES).grey, RAMP)
    assert np.array_equal(decode(tiff(RAMP, bigtiff=True), RULES).grey, RAMP)
    assert np.array_equal(decode(tiff(RAMP, byteorder=">"), RULES).grey, RAMP)


def test_grey_jpeg() -> None:
    assert_near(decode(saved(RAMP, "JPEG", quality=95), RULES), RAMP, 6)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_colour_becomes_grey_by_bt601(kind: str) -> None:
    assert_near(decode(saved(COLOURS, kind), RULES), GREY_OF_COLOURS, 1)


def test_progressive_colour_jpeg() -> None:
    smooth = np.full((HEIGHT, WIDTH, 3), (200, 40, 90), np.uint8)
    found = decode(saved(smooth, "JPEG", quality=95, progressive=True), RULES)
    assert_near(found, np.full((HEIGHT, WIDTH), 93.5), 3)
    assert found.overlay_share == 1.0


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_one_bit(kind: str) -> None:
    image = Image.fromarray(RAMP).point(lambda value: 255 * (value > 90), "1")
    found = decode(saved(image, kind), RULES)
    assert np.array_equal(found.grey, np.where(RAMP > 90, 255, 0))
    assert found.overlay_share == 0.0
    if kind != "BMP":
        assert found.bits == 1


def test_alpha_lies_on_black() -> None:
    alpha = np.zeros((HEIGHT, WIDTH), np.uint8)
    alpha[:, 10:], alpha[:, 30:] = 128, 255
    expected = GREY_OF_COLOURS * (alpha / 255)
    assert_near(decode(saved(np.dstack([COLOURS, alpha]), "PNG"), RULES), expected, 2)
    grey = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(alpha)])
    assert_near(decode(saved(grey, "PNG"), RULES), RAMP * (alpha / 255), 2)


def test_palette() -> None:
    image = Image.fromarray((RAMP // 64).astype(np.uint8), "L").convert("P")
    image.putpalette([10, 20, 30, 200, 0, 0, 0, 250, 0, 90, 90, 90])
    colours = np.array([[10, 20, 30], [200, 0, 0], [0, 250, 0], [90, 90, 90]])
    expected = colours[RAMP // 64] @ np.array([0.299, 0.587, 0.114])
    for kind in ("PNG", "TIFF", "BMP"):
        found = decode(saved(image, kind), RULES)
        assert_near(found, expected, 1)
        assert found.overlay_share == pytest.approx(np.isin(RAMP // 64, (1, 2)).mean())
    clear = decode(saved(image, "PNG", transparency=2), RULES)
    assert_near(clear, np.where(RAMP // 64 == 2, 0, expected), 1)


def test_a_transparent_grey_level_is_black() -> None:
    found = decode(saved(RAMP, "PNG", transparency=100), RULES)
    assert np.array_equal(found.grey, np.where(RAMP == 100, 0, RAMP))


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind: str) -> None:
    values = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    values[..., 3] = RAMP
    image = Image.frombytes("CMYK", (WIDTH, HEIGHT), values.tobytes())
    options = {"quality": 98} if kind == "JPEG" else {}
    found = decode(saved(image, kind, **options), RULES)
    assert_near(found, 255.0 - RAMP, 4)
    assert found.overlay_share == 0.0


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_is_scaled_by_the_smallest_scale_that_holds_it(kind: str, bits: int) -> None:
    full = 2**bits - 1
    values = np.rint(np.linspace(0, full, HEIGHT * WIDTH)).astype(np.uint16).reshape(HEIGHT, WIDTH)
    found = decode(saved(values, kind), RULES)
    assert found.bits == 16
    assert_near(found, values * 255.0 / full, 0.5)
    half = decode(saved((values // 2 + full // 4).astype(np.uint16), kind), RULES)
    assert_near(half, (values // 2 + full // 4) * 255.0 / full, 0.5)


def test_32_bit_and_float_tiff() -> None:
    integers = np.linspace(0, 4000, HEIGHT * WIDTH).astype(np.int32).reshape(HEIGHT, WIDTH)
    found = decode(tiff(integers), RULES)
    assert found.bits == 32
    assert_near(found, integers * 255.0 / 4095, 0.5)
    floats = np.linspace(0, 0.5, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    assert_near(decode(tiff(floats), RULES), floats * 255.0, 0.51)
    assert_near(decode(tiff(floats * 300), RULES), floats * 300, 0.51)
    assert decode(tiff(np.zeros((HEIGHT, WIDTH), np.float32)), RULES).grey.max() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_white_is_zero_is_turned_round(dtype: type) -> None:
    full = np.iinfo(dtype).max
    values = (RAMP.astype(np.uint32) * full // 255).astype(dtype)
    values[0, 0] = full
    found = decode(tiff(values, photometric="miniswhite"), RULES)
    assert_near(found, 255 - values * 255.0 / full, 0.5)


@pytest.mark.parametrize(
    "values",
    [
        np.full((HEIGHT, WIDTH), -1, np.int32),
        np.full((HEIGHT, WIDTH), 65536, np.int32),
        np.full((HEIGHT, WIDTH), np.nan, np.float32),
        np.full((HEIGHT, WIDTH), np.inf, np.float32),
        np.full((HEIGHT, WIDTH), -0.5, np.float32),
    ],
)
def test_samples_out_of_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(UndecodableError, match="samples from"):
        decode(tiff(values), RULES)


TURNS = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).T,
    8: np.rot90,
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", TURNS)
def test_orientation_is_applied(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"tiffinfo": {0x0112: orientation}} if kind == "TIFF" else {"exif": exif}
    found = decode(saved(RAMP, kind, **options), RULES)
    assert_near(found, TURNS[orientation](RAMP), 0 if kind != "JPEG" else 12)


def huge_png(side: int, idat: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        packed = struct.pack(">I", len(body)) + kind + body
        return packed + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(idat)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("side", [8_000, 12_000, 60_000, 2**31 - 1])
def test_a_decompression_bomb_is_a_reason_and_no_warning(side: int) -> None:
    data = huge_png(side, b"\0" * 1000)
    assert len(data) < 200
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(UndecodableError, match=f"{side} x {side} pixels, .* 50000000"):
            decode(data, RULES)
    assert caught == []


def test_a_huge_tiff_tile_is_a_bomb_too() -> None:
    data = bytearray(tiff(RAMP, tile=(16, 16), byteorder="<"))
    for tag in (322, 323):
        entry = next(i for i in range(8, 400) if data[i : i + 3] == struct.pack("<HB", tag, 4))
        data[entry + 8 : entry + 12] = struct.pack("<I", 50_000)
    with pytest.raises(UndecodableError, match="50000 x 50000 pixels"):
        decode(bytes(data), RULES)


def with_size(kind: str, width: int, height: int) -> bytes:
    """A small file whose header declares another size."""
    data = bytearray(saved(RAMP, kind))
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "BMP":
        data[18:26] = struct.pack("<ii", width, height)
    else:
        for tag, value in ((256, width), (257, height)):
            entry = next(
                i
                for i in range(8, len(data))
                if data[i : i + 2] == struct.pack("<H", tag)
                and data[i + 4 : i + 8] == struct.pack("<I", 1)
            )
            data[entry + 2 : entry + 12] = struct.pack("<HII", 4, 1, value)
    return bytes(data)


@pytest.mark.parametrize("kind", ["JPEG", "BMP", "TIFF"])
def test_every_format_is_bounded_by_its_header(kind: str) -> None:
    assert decode(with_size(kind, WIDTH, HEIGHT), RULES).grey.shape == (HEIGHT, WIDTH)
    with pytest.raises(TooLargeError, match="65000 x 64000 pixels, more than max_pixels"):
        decode(with_size(kind, 65000, 64000), RULES)


def test_a_jpeg_with_endless_scans_is_refused_undecoded() -> None:
    """Each scan of 30 bytes would cost as much time as the whole picture."""
    jpeg = saved(RAMP, "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    scans = jpeg.count(b"\xff\xda")
    assert scans < 20
    most = jpeg[:-2] + last * (100 - scans) + jpeg[-2:]
    assert decode(most, RULES).grey.shape == RAMP.shape
    with pytest.raises(TooLargeError, match="1000 progressive scans, expected at most 100"):
        decode(jpeg[:-2] + last * (1000 - scans) + jpeg[-2:], RULES)


def png_with(kind: bytes, body: bytes) -> bytes:
    png = saved(RAMP, "PNG")
    packed = struct.pack(">I", len(body)) + kind + body
    return png[:33] + packed + struct.pack(">I", zlib.crc32(kind + body)) + png[33:]


@pytest.mark.parametrize(
    ("kind", "head"), [(b"zTXt", b"a\0\0"), (b"iTXt", b"a\0\1\0\0\0"), (b"iCCP", b"a\0\0")]
)
def test_packed_text_and_profiles_do_not_unfold(kind: bytes, head: bytes) -> None:
    """In 20 MB of memory beyond its own: the chunk would take 80."""
    chunk = head + zlib.compress(bytes(80 << 20), 1)
    data = png_with(kind, chunk)
    tracemalloc.start()
    try:
        with suppress(UndecodableError):
            decode(data, RULES)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(data) * 3 + (20 << 20)


def test_a_tiff_whose_pages_run_in_a_circle_ends() -> None:
    data = bytearray(tiff(RAMP, byteorder="<"))
    (first,) = struct.unpack("<I", data[4:8])
    (entries,) = struct.unpack("<H", data[first : first + 2])
    end = first + 2 + 12 * entries
    data[end : end + 4] = struct.pack("<I", first)
    # Pillow ends at a page that it has seen: the file has one.
    for frames in (1, 1000):
        found = decode(bytes(data), IngestConfig(max_frames=frames))
        assert np.array_equal(found.grey, RAMP)


def test_what_passes_a_bound_is_told_from_what_is_damaged() -> None:
    many = saved(RAMP, "TIFF", save_all=True, append_images=[Image.fromarray(RAMP)])
    for data, rules in (
        (saved(RAMP, "PNG"), IngestConfig(max_bytes=1024)),
        (huge_png(60_000, b""), RULES),
        (many, RULES),
    ):
        with pytest.raises(TooLargeError):
            decode(data + bytes(1024), rules)
    for data in (b"", b"GIF89a", saved(RAMP, "PNG")[:-200]):
        with pytest.raises(UndecodableError) as error:
            decode(data, RULES)
        assert not isinstance(error.value, TooLargeError)


def test_bounds_are_inclusive() -> None:
    square = saved(np.zeros((64, 64), np.uint8), "PNG")
    assert decode(square, IngestConfig(max_pixels=4096)).grey.shape == (64, 64)
    with pytest.raises(UndecodableError, match="65 x 64 pixels, more than max_pixels = 4096"):
        decode(saved(np.zeros((64, 65), np.uint8), "PNG"), IngestConfig(max_pixels=4096))
    noise = saved(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8), "PNG")
    size = len(noise)
    assert decode(noise, IngestConfig(max_bytes=size)).grey.shape == (64, 64)
    with pytest.raises(UndecodableError, match=f"{size} bytes, more than max_bytes = {size - 1}"):
        decode(noise, IngestConfig(max_bytes=size - 1))


@pytest.mark.parametrize("kind", ["TIFF", "PNG"])
def test_frames_are_bounded_and_the_first_one_counts(kind: str) -> None:
    pages = [Image.fromarray(np.roll(RAMP, 9 * k, axis=0)) for k in range(3)]
    data = saved(pages[0], kind, save_all=True, append_images=pages[1:])
    for bound in (1, 2):
        with pytest.raises(UndecodableError, match=f"more frames than max_frames = {bound}"):
            decode(data, IngestConfig(max_frames=bound))
    assert np.array_equal(decode(data, IngestConfig(max_frames=3)).grey, RAMP)


def test_the_declared_number_of_tiff_frames_is_not_walked() -> None:
    count = 200_000
    head = b"II*\x00" + struct.pack("<I", 8)
    frames = b"".join(
        struct.pack("<HI", 0, 8 + 6 * (index + 1) if index + 1 < count else 0)
        for index in range(count)
    )
    with pytest.raises(UndecodableError):
        decode(head + frames, RULES)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        saved(RAMP, "GIF"),
        saved(RAMP, "WEBP"),
        saved(RAMP, "PPM"),
        saved(RAMP, "ICO"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_other_formats_are_refused(data: bytes) -> None:
    with pytest.raises(UndecodableError, match=r"not a PNG, JPEG, TIFF, BMP or DICOM file|empty"):
        decode(data, RULES)


def test_the_error_is_a_value_error_with_its_detail() -> None:
    with pytest.raises(ValueError, match="empty") as caught:
        decode(b"", RULES)
    assert isinstance(caught.value, UndecodableError)
    assert caught.value.detail == "the file is empty: copy it again from where it came"


NOISE = np.random.default_rng(3).integers(0, 256, (48, 48), np.uint8)
VALID = {
    "png": saved(NOISE, "PNG"),
    "png16": saved(NOISE.astype(np.uint16) * 257, "PNG"),
    "jpeg": saved(NOISE, "JPEG"),
    "progressive": saved(np.dstack([NOISE] * 3), "JPEG", progressive=True),
    "bmp": saved(NOISE, "BMP"),
    "tiff": saved(NOISE, "TIFF"),
    "lzw": saved(NOISE, "TIFF", compression="tiff_lzw"),
    "tifffile": tiff(NOISE, tile=(16, 16)),
    "pages": saved(
        Image.fromarray(NOISE), "TIFF", save_all=True, append_images=[Image.fromarray(NOISE)]
    ),
}


@pytest.mark.parametrize("name", VALID)
def test_a_truncated_file_is_never_half_an_image(name: str) -> None:
    data, rules = VALID[name], IngestConfig(max_frames=9)
    whole = decode(data, rules).grey
    for length in range(0, len(data), 13):
        try:
            found = decode(data[:length], rules)
        except UndecodableError:
            continue
        assert np.array_equal(found.grey, whole)
        assert length > 0.9 * len(data) or name == "pages"


@given(st.sampled_from(sorted(VALID)), st.data())
@settings(max_examples=400)
@pytest.mark.filterwarnings("ignore")
def test_damage_is_a_picture_or_a_reason(name: str, data: st.DataObject) -> None:
    damaged = bytearray(VALID[name])
    limit = data.draw(st.sampled_from([64, len(damaged)]))
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, limit - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(damaged), RULES)
    except UndecodableError as error:
        assert error.detail  # noqa: PT017 - a picture is as good
    else:
        assert found.grey.dtype == np.uint8
        assert 0 < found.grey.size <= RULES.max_pixels


@given(
    st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\0", b"MM\0*", b"BM"]),
    st.binary(max_size=300),
)
@pytest.mark.filterwarnings("ignore")
def test_arbitrary_bytes_are_a_reason(start: bytes, rest: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(start + rest, IngestConfig(max_pixels=4096))


def test_decoding_leaves_pillow_as_it_was_in_threads() -> None:
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    files = [VALID["png"], VALID["lzw"], huge_png(12_000, b""), VALID["jpeg"]] * 10

    def outcome(data: bytes) -> object:
        try:
            return decode(data, RULES).grey.tobytes()
        except UndecodableError as error:
            return error.detail

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(outcome, files)) == [outcome(data) for data in files]
    assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before


def test_resize_keeps_the_mean_and_fills_the_square() -> None:
    rng = np.random.default_rng(1)
    grey = rng.integers(0, 256, (120, 300), np.uint8)
    small = resize(grey, 30)
    assert small.shape == (30, 30)
    assert small.dtype == np.uint8
    assert small.mean() == pytest.approx(grey.mean(), abs=1.0)
    # Without antialiasing noise would keep its spread; a triangle filter over 4 x 10 shrinks it.
    assert small.std() < 0.25 * grey.std()
    assert np.array_equal(resize(NOISE, 48), NOISE)


def test_resize_squashes_the_whole_image() -> None:
    grey = np.zeros((40, 80), np.uint8)
    grey[:, 60:] = 200
    halves = resize(grey, 20)
    assert np.array_equal(halves[:, :14], np.zeros((20, 14)))
    assert np.array_equal(halves[:, 16:], np.full((20, 4), 200))


def test_resize_is_bilinear() -> None:
    ramp = np.tile(np.arange(0, 160, 10, dtype=np.uint8), (16, 1))
    expected = ndimage.zoom(ramp.astype(float), 4, order=1, grid_mode=True, mode="nearest")
    assert np.abs(resize(ramp, 64) - expected).max() <= 1
