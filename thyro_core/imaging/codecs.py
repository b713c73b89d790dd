"""What can be decoded on this machine, by the names that people use."""

from pydicom.uid import UID

from thyro_core.imaging.dicom import is_decodable

PACKAGES = (
    "opencv-python-headless",
    "pillow",
    "pydicom",
    "pyjpegls",
    "pylibjpeg",
    "pylibjpeg-libjpeg",
    "pylibjpeg-openjpeg",
)
"""What decodes pictures, clips and DICOM's transfer syntaxes."""

_PREFIX = "1.2.840.10008.1.2"
_CODECS = {
    "uncompressed": "", "deflated": ".1.99", "big endian": ".2", "RLE": ".5",
    "JPEG": ".4.50", "JPEG (12 bits)": ".4.51", "JPEG Lossless": ".4.70",
    "JPEG Lossless (any predictor)": ".4.57",
    "JPEG-LS": ".4.80", "JPEG-LS (near-lossless)": ".4.81",
    "JPEG 2000": ".4.90", "JPEG 2000 (lossy)": ".4.91", "HTJ2K": ".4.201",
    "HTJ2K (lossy)": ".4.203",
    "MPEG-2": ".4.100", "MPEG-4": ".4.102", "HEVC": ".4.107",
    "JPEG 2000 Part 2": ".4.92", "JPEG XL": ".4.110", "JPIP": ".4.94",
    "deflated frames": ".8.1", "SMPTE ST 2110": ".7.1",
}  # fmt: skip

EXPECTED_CODECS: tuple[str, ...] = tuple(_CODECS)[: list(_CODECS).index("JPEG 2000 Part 2")]
"""What is read where all that Thyro depends on is installed whole."""


def codecs() -> tuple[list[str], list[str]]:
    """Names of the DICOM transfer syntaxes that are read here, and of those that are not."""
    readable: list[str] = []
    lacking: list[str] = []
    for name, suffix in _CODECS.items():
        (readable if is_decodable(UID(_PREFIX + suffix)) else lacking).append(name)
    return readable, lacking
