"""Every kind of pixels that archives hold: the right grey levels, or the true reason."""

import io
import struct
import tempfile
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filereader import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from tests.support.dicoms import (
    US,
    dataset,
    dicom,
    encapsulated,
    jpeg_lossless,
    jpeg_of_blocks,
    region,
    saved,
    speckle,
)
from tests.support.places import REPOSITORY
from thyro_core.imaging import codecs
from thyro_core.imaging.decode import UndecodableError, decode
from thyro_core.imaging.dicom import DicomImages, read_dicom
from thyro_core.screening.config import ScreeningRules

GREY = speckle(80, 100)
RGB = np.stack([GREY, np.roll(GREY, 7, 0), GREY[::-1]], axis=-1)
GREY_OF_RGB = np.array(Image.fromarray(RGB).convert("L")).astype(int)
WIDE = GREY.astype(np.uint16) * 16 + 5


def read(data: bytes, **rules: Any) -> DicomImages:
    return read_dicom(data, ScreeningRules(**rules), lambda *_: "q1")


def grey(data: bytes, place: int = 0) -> np.ndarray:
    contents = read(data)
    assert contents.reason is None, contents.detail
    frame = contents.frames[place]
    assert frame.image is not None, frame.detail
    return frame.image.grey.astype(int)


def refusal(data: bytes, **rules: Any) -> tuple[str, str]:
    contents = read(data, **rules)
    if contents.reason is None:
        (frame,) = contents.frames
        return str(frame.reason), str(frame.detail)
    return contents.reason, str(contents.detail)


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


# Transfer syntaxes.


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"])
def test_jpeg_lossless_is_exact(syntax: str) -> None:
    data = encapsulated(GREY, syntax, [jpeg_lossless(GREY, 8)])
    np.testing.assert_array_equal(grey(data), GREY)
    data = encapsulated(WIDE, syntax, [jpeg_lossless(WIDE, 12)], BitsStored=12, HighBit=11)
    np.testing.assert_allclose(grey(data), WIDE * 255.0 / 4095, atol=0.51)


def test_jpeg_of_12_bits_is_within_a_grey_level() -> None:
    blocks = np.arange(0, 4096, 41)[:96].reshape(8, 12)
    pixels = np.kron(blocks, np.ones((8, 8), np.uint16)).astype(np.uint16)
    data = encapsulated(
        pixels, "1.2.840.10008.1.2.4.51", [jpeg_of_blocks(blocks, 12)], BitsStored=12, HighBit=11
    )
    np.testing.assert_allclose(grey(data), pixels * 255.0 / 4095, atol=1)


@pytest.mark.parametrize("pixels", [GREY, RGB, WIDE], ids=["grey", "rgb", "12 bits"])
def test_jpeg_ls_is_exact(pixels: np.ndarray) -> None:
    bits = 12 if pixels is WIDE else 8
    source = dataset(pixels, BitsStored=bits, HighBit=bits - 1)
    source.compress(JPEGLSLossless)
    expected = {8: GREY if pixels is GREY else GREY_OF_RGB, 12: WIDE * 255.0 / 4095}[bits]
    np.testing.assert_allclose(grey(saved(source)), expected, atol=0.51)


def test_a_deflated_file_is_read() -> None:
    np.testing.assert_array_equal(grey(dicom(GREY, DeflatedExplicitVRLittleEndian)), GREY)
    cut = dicom(GREY, DeflatedExplicitVRLittleEndian)[:-900]
    reason, detail = refusal(cut)
    assert (reason, detail.split(":")[0]) == ("undecodable", "truncated")
    assert read(cut).patient_id == "q1"


def video(
    n: int, kind: str = ".mp4", code: str = "mp4v", side: tuple[int, int] = (96, 64)
) -> bytes:
    """A clip whose frame i is flat, of grey level 20 + 7 i."""
    with tempfile.NamedTemporaryFile(suffix=kind) as file:
        writer = cv2.VideoWriter(file.name, cv2.VideoWriter.fourcc(*code), 25, side)
        for i in range(n):
            writer.write(np.full((side[1], side[0], 3), 20 + 7 * i, np.uint8))
        writer.release()
        return file.read()


def mpeg(stream: bytes, n: int, syntax: str = "1.2.840.10008.1.2.4.102", **elements: Any) -> bytes:
    source = dataset(np.zeros((2, 64, 96, 3), np.uint8), syntax,
                     PhotometricInterpretation="YBR_PARTIAL_420", **elements)  # fmt: skip
    source.NumberOfFrames = n
    source.add_new("PixelData", "OB", encapsulate([stream]))
    source["PixelData"].is_undefined_length = True
    return saved(source)


@pytest.mark.parametrize(
    ("kind", "code", "syntax"),
    [(".mp4", "mp4v", "1.2.840.10008.1.2.4.102"), (".mpg", "mpg2", "1.2.840.10008.1.2.4.100")],
)
def test_eight_even_frames_of_an_mpeg_clip(kind: str, code: str, syntax: str) -> None:
    contents = read(mpeg(video(24, kind, code), 24, syntax))
    assert contents.reason is None, contents.detail
    assert [frame.index for frame in contents.frames] == [1, 4, 7, 10, 13, 16, 19, 22]
    for frame in contents.frames:
        assert frame.image is not None
        np.testing.assert_allclose(frame.image.grey, 20.0 + 7 * frame.index, atol=3)


@pytest.mark.parametrize(
    ("name", "syntax"),
    [("h264", "1.2.840.10008.1.2.4.102"), ("h264", "1.2.840.10008.1.2.4.106"),
     ("hevc", "1.2.840.10008.1.2.4.107")],
)  # fmt: skip
def test_clips_as_scanners_write_them(name: str, syntax: str) -> None:
    """Twelve frames as `video` draws them, by libx264 and libx265: OpenCV encodes neither."""
    stream = (REPOSITORY / f"tests/golden/clip-{name}.mp4").read_bytes()
    contents = read(mpeg(stream, 12, syntax))
    assert [frame.index for frame in contents.frames] == [0, 2, 3, 5, 6, 8, 9, 11]
    for frame in contents.frames:
        assert frame.image is not None, frame.detail
        np.testing.assert_allclose(frame.image.grey, 20.0 + 7 * frame.index, atol=3)


@pytest.mark.parametrize("number", [201, 202, 203])
def test_htj2k_is_exact(number: int) -> None:
    """A lossless codestream by OpenJPH; nothing that is installed here encodes one."""
    stream = (REPOSITORY / "tests/golden/htj2k.j2c").read_bytes()
    pixels = speckle(64, 64, 40)
    syntax = f"1.2.840.10008.1.2.4.{number}"
    np.testing.assert_array_equal(grey(encapsulated(pixels, syntax, [stream])), pixels)
    reason, detail = refusal(encapsulated(pixels, syntax, [stream[: len(stream) // 3]]))
    assert reason == "undecodable", detail


@pytest.mark.parametrize(
    ("declared", "words"),
    [(None, "no number of frames"), (1, "1 frame"), (8, "8 frames"), (50, "50 frames"),
     (0, "0 frames"), (10**6, "1000000 frames"), ("many", "no number of frames")],
)  # fmt: skip
def test_the_frames_of_an_mpeg_clip_are_counted_in_its_stream(
    declared: int | str | None, words: str
) -> None:
    """Archives write 1 there, or nothing, or what was before the clip was cut."""
    data = mpeg(video(24), 24)
    number = {None: b"", "many": b"many"}.get(declared, str(declared).encode())
    element = b"\x28\x00\x08\x00IS" + len(b"24").to_bytes(2, "little") + b"24"
    assert data.count(element) == 1
    padded = number + b" " * (len(number) % 2)
    other = element[:6] + len(padded).to_bytes(2, "little") + padded if number else b""
    contents = read(data.replace(element, other))
    assert contents.note == f"the file declares {words}, its stream holds 24: these are used"
    assert contents.is_clip
    assert [frame.index for frame in contents.frames] == [1, 4, 7, 10, 13, 16, 19, 22]
    for frame in contents.frames:
        assert frame.image is not None, frame.detail
        np.testing.assert_allclose(frame.image.grey, 20.0 + 7 * frame.index, atol=3)
    assert read(data).note is None


def test_an_mpeg_clip_of_too_many_frames_is_refused_whatever_it_declares() -> None:
    data = mpeg(video(12), 1)
    assert refusal(data, max_clip_frames=11) == (
        "too_large", "more than max_clip_frames = 11 frames"
    )  # fmt: skip
    assert len(read(data, max_clip_frames=12).frames) == 8


def test_what_is_no_stream_is_never_opened() -> None:
    """FFmpeg would follow a playlist to any file."""
    playlist = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"
    assert refusal(mpeg(playlist, 8)) == (
        "undecodable", "the clip holds no MPEG-2, MPEG-4 or HEVC stream: export it again",
    )  # fmt: skip
    reason, detail = refusal(mpeg(video(8, side=(128, 96)), 8))
    assert (reason, detail[:35]) == ("undecodable", "a stream of 128 x 96 pixels in a fi")
    assert refusal(mpeg(b"\0\0\1\xb3" + bytes(900), 8))[0] == "undecodable"


def test_what_can_be_decoded_is_what_is_listed() -> None:
    readable, lacking = codecs.codecs()
    assert set(readable) & set(lacking) == set()
    for name in ("JPEG Lossless", "JPEG-LS", "JPEG 2000", "HTJ2K", "HTJ2K (lossy)", "RLE",
                 "deflated", "MPEG-4", "HEVC", "JPEG (12 bits)"):  # fmt: skip
        assert name in readable
    assert "SMPTE ST 2110" in lacking


# Colours.


def palette(pixels: np.ndarray, syntax: str, tables: list[bytes], bits: int, **more: Any) -> bytes:
    source = dataset(pixels, syntax, PhotometricInterpretation="PALETTE COLOR", **more)
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(source, f"{name}PaletteColorLookupTableDescriptor", [256, 0, bits])
        setattr(source, f"{name}PaletteColorLookupTableData", table)
    return saved(source)


RAMPS = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 90)])
GREY_OF_RAMPS = np.array(Image.fromarray(RAMPS.T[GREY].astype(np.uint8)).convert("L")).astype(int)


@pytest.mark.parametrize("bits", [8, 16])
def test_palettes_of_big_endian_files(bits: int) -> None:
    if bits == 8:  # two entries a word, the first one in its low byte
        tables = [ramp.astype(np.uint8).view("<u2").astype(">u2").tobytes() for ramp in RAMPS]
    else:
        tables = [(ramp * 257).astype(">u2").tobytes() for ramp in RAMPS]
    data = palette(GREY, ExplicitVRBigEndian, tables, bits)
    np.testing.assert_array_equal(grey(data), GREY_OF_RAMPS)


def test_a_palette_of_16_bits_that_holds_8_is_not_black() -> None:
    tables = [ramp.astype("<u2").tobytes() for ramp in RAMPS]
    np.testing.assert_array_equal(
        grey(palette(GREY, ExplicitVRLittleEndian, tables, 16)), GREY_OF_RAMPS
    )


def segmented(*segments: tuple[int, ...]) -> bytes:
    return struct.pack(
        f"<{sum(map(len, segments))}H", *[word for part in segments for word in part]
    )


def segmented_palette(tables: list[bytes], **more: Any) -> bytes:
    source = dataset(GREY, PhotometricInterpretation="PALETTE COLOR", **more)
    for name, table in zip(("Red", "Green", "Blue"), tables, strict=True):
        setattr(source, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(source, f"Segmented{name}PaletteColorLookupTableData", table)
    return saved(source)


def test_segmented_palettes() -> None:
    rising = segmented((0, 1, 0), (1, 255, 65535))
    # Twice the same half: the second one by its place in the table, in bytes.
    saw = segmented((0, 1, 0), (1, 127, 127 * 257), (2, 2, 0, 0))
    listed = segmented((0, 256, *[257 * i for i in range(256)]))
    expected = np.stack([np.arange(256), np.arange(256) % 128, np.arange(256)]).T[GREY]
    colours = np.array(Image.fromarray(expected.astype(np.uint8)).convert("L")).astype(int)
    np.testing.assert_allclose(grey(segmented_palette([rising, saw, listed])), colours, atol=1)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        (segmented((0, 3, 1, 2, 3)), "a lookup table of 3 entries that declares 256"),
        (segmented((1, 255, 65535)), "a palette segment of kind 1"),
        (segmented((9, 1, 0)), "a palette segment of kind 9"),
        (segmented((2, 60000, 0, 0)) * 50, "a lookup table of 0 entries"),
        (segmented((0, 0), *[(2, 60000, 0, 0)] * 2000), "a lookup table of"),
        (b"", "a lookup table of 0 entries"),
    ],
)
def test_damaged_palettes_are_refused_soon(table: bytes, found: str) -> None:
    reason, detail = refusal(segmented_palette([table] * 3))
    assert reason == "undecodable"
    assert found in detail
    assert detail.endswith("export the file again")


def test_a_palette_without_a_table() -> None:
    source = dataset(GREY, PhotometricInterpretation="PALETTE COLOR")
    assert refusal(saved(source)) == (
        "undecodable", "a palette picture without its red table: export it again as RGB",
    )  # fmt: skip


def test_ycbcr_jpeg_tagged_rgb_and_the_reverse() -> None:
    """The frame's own word counts; the tag where it says nothing."""
    smooth = np.stack([speckle(80, 100, seed, sigma=4) for seed in (0, 1, 2)], axis=-1)
    expected = np.array(Image.fromarray(smooth).convert("L")).astype(int)
    ycbcr = jpeg(smooth, quality=98, subsampling=0)
    for tag in ("RGB", "YBR_FULL_422"):
        data = encapsulated(smooth, JPEGBaseline8Bit, [ycbcr], PhotometricInterpretation=tag)
        np.testing.assert_allclose(grey(data), expected, atol=6)
    bare = ycbcr.replace(ycbcr[2:20], b"", 1)  # without the JFIF marker
    data = encapsulated(smooth, JPEGBaseline8Bit, [bare], PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(grey(data), expected, atol=6)
    halved = jpeg(smooth, quality=98, subsampling=1).replace(ycbcr[2:20], b"", 1)
    data = encapsulated(smooth, JPEGBaseline8Bit, [halved], PhotometricInterpretation="RGB")
    np.testing.assert_allclose(grey(data), expected, atol=12)
    rgb = jpeg(smooth, quality=98, subsampling=0, keep_rgb=True)
    for tag in ("RGB", "YBR_FULL"):
        data = encapsulated(smooth, JPEGBaseline8Bit, [rgb], PhotometricInterpretation=tag)
        np.testing.assert_allclose(grey(data), expected, atol=6)


@pytest.mark.parametrize(
    "name",
    ["SC_rgb_jpeg_dcmtk.dcm", "SC_rgb_jpeg_gdcm.dcm", "SC_rgb_dcmtk_+eb+cr.dcm",
     "SC_rgb_dcmtk_+eb+cy+n1.dcm", "SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_dcmtk_+eb+cy+s4.dcm",
     "SC_jpeg_no_color_transform.dcm", "SC_rgb_rle_16bit.dcm", "SC_rgb_small_odd.dcm"],
)  # fmt: skip
def test_colours_of_other_peoples_files(name: str) -> None:
    """Bars of known colours, as five toolkits wrote them; each is grey as its colour is."""
    path = get_testdata_file(name, download=False)
    assert path is not None
    source = dcmread(str(path))
    source.SOPClassUID, source.Modality = US, "US"
    levels = grey(saved(source))
    if "color_transform" in name or "odd" in name:
        assert len(np.unique(levels)) > 1
        return
    bars = [levels[top : top + 4, 20:80].mean() for top in range(3, 100, 10)]
    # Red, light red, green, light green, blue, light blue, black, grey, light grey, white.
    rgb = [(255, 0, 0), (255, 128, 128), (0, 255, 0), (128, 255, 128), (0, 0, 255),
           (128, 128, 255), (0, 0, 0), (64,) * 3, (192,) * 3, (255,) * 3]  # fmt: skip
    expected = [0.299 * r + 0.587 * g + 0.114 * b for r, g, b in rgb]
    np.testing.assert_allclose(bars, expected, atol=4)


def test_a_tiff_of_separate_16_bit_planes_is_refused_with_the_cure() -> None:
    import tifffile

    wide = RGB.astype(np.uint16) * 257
    for pixels, planes in ((wide, "separate"), (wide, "contig"), (RGB, "separate")):
        buffer = io.BytesIO()
        stored = pixels.transpose(2, 0, 1) if planes == "separate" else pixels
        tifffile.imwrite(buffer, stored, photometric="rgb", planarconfig=planes)
        if pixels is wide and planes == "separate":
            with pytest.raises(
                UndecodableError, match="3 separate planes of 16 bits: not read; sa"
            ):
                decode(buffer.getvalue(), ScreeningRules())
        else:
            picture = decode(buffer.getvalue(), ScreeningRules())
            np.testing.assert_array_equal(picture.grey, GREY_OF_RGB)


# Bits and tables.


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
@pytest.mark.parametrize("signed", [False, True])
def test_high_bit_other_than_the_last_one_stored(syntax: str, signed: bool) -> None:
    values = WIDE.astype(np.int16) - 2048 if signed else WIDE
    noise = np.random.default_rng(0).integers(0, 16, GREY.shape)
    stored = ((values.astype(np.int32) << 4) | noise).astype(np.int16 if signed else np.uint16)
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    plain = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    source = dataset(stored.astype(stored.dtype.newbyteorder(order)), plain, BitsStored=12,
                     HighBit=15, PixelRepresentation=int(signed))  # fmt: skip
    if syntax == RLELossless:
        source.compress(RLELossless)
    expected = WIDE * 255.0 / 4095
    np.testing.assert_allclose(grey(saved(source)), expected, atol=0.51)


@pytest.mark.parametrize("high", [10, 16, 3])
def test_an_impossible_high_bit_is_refused(high: int) -> None:
    reason, detail = refusal(dicom(WIDE, BitsStored=12, HighBit=high))
    assert reason == "undecodable"
    assert detail.startswith(f"HighBit {high} with 12 bits stored of 16")


def lut(values: np.ndarray, bits: int, first: int = 0, *, as_bytes: bool = True) -> Dataset:
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    if as_bytes:
        item.add_new("LUTData", "OW", values.astype("<u2").tobytes())
    else:
        item.add_new("LUTData", "US", values.tolist())
    return item


@pytest.mark.parametrize("as_bytes", [True, False])
def test_a_modality_table(as_bytes: bool) -> None:
    table = np.rint(1023 * (np.arange(256) / 255) ** 2).astype(int)
    item = lut(table, 10, as_bytes=as_bytes)
    item.ModalityLUTType = "US"
    np.testing.assert_allclose(
        grey(dicom(GREY, ModalityLUTSequence=[item])), table[GREY] * 255 / 1023, atol=0.51
    )
    # The window counts in what the table gives.
    data = dicom(GREY, ModalityLUTSequence=[item], WindowCenter=100, WindowWidth=201)
    expected = np.clip((table[GREY] - 99.5) / 200 + 0.5, 0, 1) * 255
    np.testing.assert_allclose(grey(data), expected, atol=0.51)


def test_a_voi_table_comes_after_the_rescale() -> None:
    item = lut(np.arange(255, -1, -1), 8, first=-100 & 0xFFFF)
    data = dicom(GREY, RescaleSlope=1, RescaleIntercept=-100, VOILUTSequence=[item])
    np.testing.assert_array_equal(grey(data), 255 - GREY.astype(int))


def test_presentation_shape_inverse_inverts_once() -> None:
    plain = dicom(255 - GREY, PresentationLUTShape="INVERSE")
    np.testing.assert_array_equal(grey(plain), GREY)
    both = dicom(
        255 - GREY, PresentationLUTShape="INVERSE", PhotometricInterpretation="MONOCHROME1"
    )
    np.testing.assert_array_equal(grey(both), GREY)
    np.testing.assert_array_equal(grey(dicom(GREY, PresentationLUTShape="IDENTITY")), GREY)


# What is cut off.


def j2k(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG2000", irreversible=False, no_jp2=True)
    return buffer.getvalue()


@pytest.mark.parametrize("share", [0.9, 0.5])
@pytest.mark.parametrize("kind", ["raw", "jpeg", "j2k", "rle", "clip"])
def test_a_truncated_file_says_so_and_keeps_its_patient(kind: str, share: float) -> None:
    whole = {
        "raw": dicom(GREY),
        "jpeg": encapsulated(GREY, JPEGBaseline8Bit, [jpeg(GREY)]),
        "j2k": encapsulated(GREY, JPEG2000Lossless, [j2k(GREY)]),
        "clip": encapsulated(np.stack([GREY] * 3), JPEGBaseline8Bit, [jpeg(GREY)] * 3),
    }
    if kind == "rle":
        source = dataset(GREY)
        source.compress(RLELossless)
        whole["rle"] = saved(source)
    head = whole[kind].index(struct.pack("<HH", 0x7FE0, 0x0010))
    cut = whole[kind][: head + int(share * (len(whole[kind]) - head))]
    contents = read(cut)
    assert (contents.reason, contents.patient_id) == ("undecodable", "q1")
    assert str(contents.detail).startswith("truncated: the file ends before its pixel data")
    assert str(contents.detail).endswith("copy it again from where it came")


def test_a_header_cut_within_a_sequence_keeps_its_patient() -> None:
    data = dicom(GREY, SequenceOfUltrasoundRegions=[region(1, 1, (0, 0, 99, 79))])
    cut = data[: data.index(struct.pack("<HH", 0x0018, 0x6011)) + 30]
    contents = read(cut)
    assert contents.patient_id == "q1"
    assert str(contents.detail).startswith("no pixel data in it: truncated, or a header alone")
