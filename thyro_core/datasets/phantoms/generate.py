"""Synthetic thyroid ultrasound: pictures to try everything on, without a single patient.

Tissue scatters at random; the beam blurs the scatterers, the scanner takes the envelope, evens out
depth and compresses the logarithm. What is scanned is in `phantom_anatomy`.
"""

import io
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import fft, ndimage

from thyro_core.datasets.phantoms import anatomy
from thyro_core.datasets.phantoms import features as phantom_features
from thyro_core.datasets.phantoms.anatomy import Grid, Scan
from thyro_core.datasets.phantoms.features import Features
from thyro_core.errors import InputError
from thyro_core.host import cores
from thyro_core.store.store import Store, open_store
from thyro_core.types import Float32Array

_ATTENUATION = 0.5
"""Of soft tissue [dB/cm/MHz, one way]: Szabo, Diagnostic Ultrasound Imaging, 2014, appendix B."""
_NOISE_DB = -60.0
"""Electronic noise against parenchyma at the skin; the depth compensation lifts it with depth."""
_WORTH_A_PROCESS = 16
"""Images per process below which starting it costs more than it saves."""
_MOST_PROCESSES = 8
_FRAME_MARGIN = 16
"""Spare lines at each side [lines], so that the beam's tail does not come round from the other."""
_LABELS_FILE = "labels.csv"
_NEPER = np.float32(np.log(10.0) / 10.0)
_Task = tuple[int, int, bool]


@dataclass(frozen=True)
class Phantom:
    """One synthetic picture.

    `image` is uint8 (height, width), `mask` bool of the same shape: True inside the nodule.
    """

    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.bool_]
    features: Features


def phantom(seed: int, index: int, malignant: bool) -> Phantom:
    """Render one phantom; the same arguments always give the same picture.

    The two classes of one seed and index share scanner, neck and speckle: only the nodule differs.
    """
    scan = anatomy.draw_scan(seed, index)
    features = phantom_features.draw_features(seed, index, malignant)
    neck_rng, nodule_rng, speckle_rng = (
        np.random.default_rng([seed, index, stream]) for stream in (2, 3, 4)
    )
    grid = _grid(scan)
    tissue = anatomy.neck(neck_rng, scan, grid)
    tissue, mask = anatomy.nodule(nodule_rng, features, scan, grid, tissue)
    level = tissue.echo - _two_way(tissue.loss) + _gain(speckle_rng, grid)
    level = np.logaddexp(level * _NEPER, _noise_level(scan, grid) * _NEPER) / _NEPER
    amplitude, beam = np.power(np.float32(10.0), level / np.float32(20.0)), _beam(scan, grid)
    looks = [_envelope(speckle_rng, amplitude, *beam) for _ in range(scan.looks)]
    picture = _on_screen(scan, _compress(np.mean(looks, axis=0), scan))
    image = _marks(scan, np.rint(picture).astype(np.uint8))
    return Phantom(image, _on_screen(scan, mask.astype(np.float32)) > 0.5, features)


def _pixels_per_depth(scan: Scan) -> float:
    """Rows of one image depth: a fan's face bulges down, so its flanks need rows above it."""
    rise = scan.radius * (1.0 - np.cos(scan.half_angle)) if scan.fan else 0.0
    return float((scan.height - scan.top) / (1.0 + rise))


def _grid(scan: Scan) -> Grid:
    """Sample positions along the scan lines: parallel, or spreading from the apex of a fan."""
    rows = round(_pixels_per_depth(scan))
    z = np.asarray((np.arange(rows)[:, None] + 0.5) / rows, np.float32)
    if scan.fan:
        lines = round(0.8 * scan.width)
        angle = np.linspace(-scan.half_angle, scan.half_angle, lines, dtype=np.float32)
        return Grid(np.asarray((scan.radius + z) * np.sin(angle), np.float32), z)
    lines = round(scan.coverage * scan.width)
    x = np.asarray((np.arange(lines) + 0.5 - lines / 2) / rows, np.float32)
    return Grid(np.broadcast_to(x, (rows, lines)), z)


def _two_way(loss: Float32Array) -> Float32Array:
    """Loss on the way there and back [dB] from the loss per depth at each sample, row by row."""
    return np.cumsum(loss, axis=0, dtype=np.float32) * np.float32(1.0 / loss.shape[0])


def _depth_loss(scan: Scan, grid: Grid) -> Float32Array:
    """Two-way loss of plain tissue above each row [dB], (rows, 1)."""
    path_cm = 2.0 * grid.z * np.float32(scan.depth_cm)
    return path_cm * np.float32(_ATTENUATION * scan.frequency_mhz)


def _gain(rng: np.random.Generator, grid: Grid) -> Float32Array:
    """What depth compensation leaves of the loss [dB]: eight sliders, never set quite right."""
    slope = rng.uniform(-14.0, -4.0)
    sliders = rng.normal(0.0, 1.2, 8) + slope * np.linspace(0.0, 1.0, 8) ** 2
    knots = np.linspace(0.0, 1.0, 8)
    return np.interp(grid.z, knots, sliders).astype(np.float32)


def _noise_level(scan: Scan, grid: Grid) -> Float32Array:
    return np.float32(_NOISE_DB) + _depth_loss(scan, grid)


def _beam(scan: Scan, grid: Grid) -> tuple[float, Float32Array]:
    """SD of the point spread: along a line [rows], and across, per row [lines], (rows, 1)."""
    wave = 10.0 / scan.frequency_mhz / scan.depth_cm
    spacing = np.diff(grid.x[:, :2], axis=1)
    off_focus = np.abs(grid.z - np.float32(scan.nodule_z))
    lateral = np.float32(0.020 * wave) * (1.0 + 1.4 * off_focus) / spacing
    return max(0.7, 0.0115 * wave * grid.z.size), np.maximum(lateral, np.float32(0.8))


def _envelope(
    rng: np.random.Generator, amplitude: Float32Array, axial: float, lateral: Float32Array
) -> Float32Array:
    """Fully developed speckle: the envelope of complex Gaussian scatterers under the beam.

    Where `amplitude` is constant the envelope is Rayleigh distributed (mean over SD 1.91) with mean
    square `amplitude`**2. Source: Wagner et al., IEEE Trans Sonics Ultrason 1983; 30:156.

    Args:
        rng: the speckle's own stream.
        amplitude: SD of the scatterers, float32 (rows, lines).
        axial: SD of the point spread along a line [rows].
        lateral: SD of the point spread across lines [lines], (rows, 1): it grows off the focus.
    """
    lines = amplitude.shape[1]
    spare = fft.next_fast_len(lines + 2 * _FRAME_MARGIN) - lines - _FRAME_MARGIN
    amplitude = np.pad(amplitude, ((0, 0), (_FRAME_MARGIN, spare)), mode="edge")
    parts = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    field = (parts[0] + 1j * parts[1]) * (amplitude * np.float32(0.5**0.5))
    waves = np.float32(2.0 * np.pi) * fft.fftfreq(amplitude.shape[1]).astype(np.float32)
    spread = np.exp(-0.5 * np.square(lateral * waves))
    spread /= np.sqrt(np.mean(np.square(spread), axis=1, keepdims=True))
    field = fft.ifft(fft.fft(field, axis=1) * spread, axis=1)[
        :, _FRAME_MARGIN : _FRAME_MARGIN + lines
    ]
    pulse = ndimage.gaussian_filter1d(np.eye(1, 65, 32)[0], axial)
    field = ndimage.gaussian_filter1d(field, axial, axis=0)
    return np.asarray(np.abs(field) / np.sqrt(np.sum(np.square(pulse))), dtype=np.float32)


def _compress(envelope: Float32Array, scan: Scan) -> Float32Array:
    """Grey values 0 to 255 of an envelope; plain tissue comes out at three eighths of white."""
    level = 20.0 * np.log10(np.maximum(envelope, np.float32(1e-6))) + np.float32(scan.gain_db)
    return np.clip(255.0 * (0.38 + level / np.float32(scan.dynamic_range_db)), 0.0, 255.0)


def _on_screen(scan: Scan, lines: Float32Array) -> Float32Array:
    """Put scan lines onto the screen, float32 (height, width), 0 where nothing was scanned."""
    if not scan.fan:
        screen = np.zeros((scan.height, scan.width), np.float32)
        column = (scan.width - lines.shape[1]) // 2
        screen[scan.top : scan.top + lines.shape[0], column : column + lines.shape[1]] = lines
        return screen
    scale = _pixels_per_depth(scan)
    apex = scan.top - scale * scan.radius * np.cos(scan.half_angle)
    down = (np.arange(scan.height) + 0.5 - apex)[:, None] / scale
    across = (np.arange(scan.width) + 0.5 - scan.width / 2) / scale
    row = (np.hypot(down, across) - scan.radius) * lines.shape[0] - 0.5
    line = (np.arctan2(across, down) / scan.half_angle + 1.0) * 0.5 * (lines.shape[1] - 1)
    return np.asarray(ndimage.map_coordinates(lines, [row, line], order=1, output=np.float32))


def _marks(scan: Scan, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Burn in a depth ruler, a focus arrow and an orientation mark where the scan has them."""
    if not scan.marks:
        return image
    step = _pixels_per_depth(scan) / scan.depth_cm
    for tick in np.arange(scan.top + 1, scan.height - 2, step / 2).astype(int):
        image[tick : tick + 2, 2:4] = 190
    focus = int(scan.top + scan.nodule_z * (scan.height - scan.top))
    for column in range(6):
        image[focus - 5 + column : focus + 6 - column, 6 + column] = 200
    start = scan.width // 2 + scan.side * scan.width // 4
    image[2:4, start : start + 8] = image[2:11, start + 3 : start + 5] = 210
    return image


def write_phantoms(
    dest: str,
    *,
    images: int = 508,
    malignant: int = 93,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write a labelled set of phantoms: `images/`, `masks/` and, last, `labels.csv`.

    The same arguments write the same bytes, in however many processes. One patient per image;
    `mask` and `image` in the labels are relative to `dest`, and a mask is 255 inside the nodule.

    Args:
        dest: folder or fsspec URL; whatever it already holds must be from an earlier such call.
        images: how many in all.
        malignant: how many of them are malignant; which ones is shuffled.
        seed: another seed, another set.
        progress: called with the number of images written so far, after each.

    Raises:
        InputError: the counts or the seed are impossible, or `dest` holds other files.
    """
    _check_counts(images, malignant, seed)
    store, names = open_store(dest), [f"p{index + 1:04d}.png" for index in range(images)]
    _check_ours(store, names)
    store.delete(_LABELS_FILE)
    order = np.random.default_rng([seed, images, malignant]).permutation(images)
    tasks = [(seed, index, bool(rank < malignant)) for index, rank in enumerate(order)]
    for n_done, (name, (image, mask)) in enumerate(zip(names, _encode_all(tasks), strict=True), 1):
        store.write(f"images/{name}", image)
        store.write(f"masks/{name}", mask)
        if progress is not None:
            progress(n_done)
    store.write(_LABELS_FILE, _labels(names, tasks))


def _check_counts(images: int, malignant: int, seed: int) -> None:
    if images < 1 or not 0 <= malignant <= images or seed < 0:
        msg = (
            "phantoms: expected images >= 1, 0 <= malignant <= images and seed >= 0, found "
            f"images={images}, malignant={malignant}, seed={seed}; change the counts or the seed."
        )
        raise InputError(msg)


def _check_ours(store: Store, names: list[str]) -> None:
    """Never mix phantoms with other images, nor overwrite the labels of real ones."""
    ours = {_LABELS_FILE} | {f"{folder}/{name}" for folder in ("images", "masks") for name in names}
    foreign = [key for key in store.keys("") if key not in ours]
    if foreign:
        msg = (
            f"{store.url}: expected an empty folder or one with the same phantoms, found "
            f"{len(foreign)} other files, {foreign[0]} among them; choose an empty folder."
        )
        raise InputError(msg)


def _labels(names: list[str], tasks: list[_Task]) -> bytes:
    lines = ["image,label,patient_id,mask,tirads_points"]
    for name, task in zip(names, tasks, strict=True):
        points = phantom_features.tirads_points(phantom_features.draw_features(*task))
        label, patient = "malignant" if task[2] else "benign", name[:-4].upper()
        lines.append(f"images/{name},{label},{patient},masks/{name},{points}")
    return ("\n".join(lines) + "\n").encode()


def _encode_all(tasks: list[_Task]) -> Iterator[tuple[bytes, bytes]]:
    """Image and mask of each task as PNG bytes, in order."""
    workers = min(cores(), _MOST_PROCESSES, len(tasks) // _WORTH_A_PROCESS)
    if workers < 2:
        yield from map(_encode, tasks)
        return
    # Spawn: a forked child of a caller with threads may inherit a held lock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(_encode, tasks, chunksize=4)


def _encode(task: _Task) -> tuple[bytes, bytes]:
    rendering = phantom(*task)
    return _png(rendering.image), _png(rendering.mask.astype(np.uint8) * np.uint8(255))


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=4)
    return buffer.getvalue()
