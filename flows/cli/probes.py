"""Probes of this machine: what a study needs, tried one after the other, with the cure."""

import logging
import platform
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from fsspec.implementations.local import LocalFileSystem

from flows.cli.units import gigabytes
from thyro_core.config import ARCHITECTURES
from thyro_core.errors import ThyroError, amount
from thyro_core.host import cores, memory
from thyro_core.pseudonyms import WITHOUT_KEY, Pseudonymiser
from thyro_core.settings import Settings
from thyro_core.store.store import Store, filesystem, open_store
from thyro_core.urls import is_archive, redact

State = Literal["ok", "warn", "fail"]

_RAY_SECONDS = 120.0
_ANSWER_SECONDS = 60.0  # botocore alone tries a dead endpoint for some 20 s
_SERVER_SECONDS = 5.0
# Ten models of all four networks, their checkpoints and packs; next to nothing is left below 1 GB.
_STUDY_BYTES, _LEAST_BYTES = 15 * 10**9, 10**9
_MIRROR = "correct THYRO_WEIGHTS"
_CAPS = {
    "fastapi": ((0, 151), "`prefect server start` fails with it"),
    "SQLAlchemy": ((2, 1), "schedules never start a run with it"),
}
_DECODERS = "pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pyjpegls opencv-python-headless"
_RAY_PROBE = """
from thyro_core.study.job import JobResources
from thyro_core.cluster.session import session
with session("local") as capacity:
    from thyro_core.cluster.trainer import job_precision
    precision = job_precision("auto", JobResources(1, 0.0), 60.0)
    sizes = [f"{n:g} {unit}{'' if n == 1 else 's'}" for n, unit in zip(
        (capacity.cpus, capacity.gpus), ("CPU", "GPU"), strict=True
    )]
    print(f"{', '.join(sizes)}; a CPU job would train in {precision}")
"""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Finding:
    """One thing that was tried.

    Attributes:
        name: What was tried.
        state: `ok`; `warn`: it works, but with less than there could be; `fail`: it does not work.
        detail: What was found, in one line, with the cure unless all is well; without passwords.
    """

    name: str
    state: State
    detail: str


_Result = tuple[State, str]


def examine(store_url: str, mirror: str | None) -> Iterator[Finding]:
    """Try everything a study needs, one after the other; a failure does not stop the others.

    An embedded Ray is started, and an object is written to the store and removed again.

    Args:
        store_url: fsspec URL of the store.
        mirror: folder or URL of ImageNet weights; None: there is none.

    Yields:
        Python, machine, the packages known to break, torch, torchvision, image formats, GPU, Ray,
        Prefect, store, pseudonyms, archive, where results go, disk, and the weights of each
        architecture.
    """
    probes: Iterable[tuple[str, Callable[[], _Result], str]] = (
        ("python", _python, "install Python 3.11 or later"),
        ("machine", _machine, "run `thyro doctor --debug`"),
        *((name, partial(_version_cap, name), _install(name)) for name in _CAPS),
        ("torch", _torch, _install("torch")),
        ("torchvision", _torchvision, _install("torchvision")),
        ("images", _images, _install(_DECODERS)),
        ("gpu", _gpu, "check the driver with nvidia-smi"),
        ("ray", _ray, "stop other Ray processes (`ray stop`), free memory, try again"),
        ("prefect", _prefect, "start the server, or unset PREFECT_API_URL"),
        ("store", partial(_within, partial(_round_trip, store_url)), _store_cure(store_url)),
        ("pseudonyms", _pseudonyms, "`openssl rand -hex 32` makes a key"),
        ("archive", partial(_within, _archive), "correct THYRO_SCREENING_BATCH or its credentials"),
        ("results", partial(_within, _results), "correct THYRO_RESULTS_TO or its credentials"),
        ("disk", partial(_disk, store_url), "choose another --store"),
        *((f"weights {name}", partial(_weights, name, mirror), _MIRROR) for name in ARCHITECTURES),
    )
    for name, probe, cure in probes:
        try:
            state, detail = probe()
        # A broken installation raises whatever it likes: it fails its own probe, not the others.
        except Exception as error:  # noqa: BLE001
            _LOG.warning("the probe of %s failed", name, exc_info=True)
            kind = "" if isinstance(error, ThyroError) else f"{type(error).__name__}: "
            state, detail = "fail", f"{kind}{error}; {cure}"
        yield Finding(name, state, " ".join(redact(detail).split()))


def _install(package: str) -> str:
    return f"install again: pip install -c constraints.txt {package}"


def _python() -> _Result:
    version = platform.python_version()
    if _release(version) < (3, 11):
        return "fail", f"{version}; Thyro needs 3.11 or later: make its environment with that"
    return "ok", f"{version} at {sys.prefix}"


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _machine() -> _Result:
    return "ok", f"{platform.platform()}, {amount(cores(), 'core')}, {gigabytes(memory())} memory"


def _version_cap(package: str) -> _Result:
    version = metadata.version(package)
    cap, harm = _CAPS[package]
    if _release(version) >= cap:
        limit = ".".join(map(str, cap))
        return "fail", f'{version}: {harm}; pip install "{package}<{limit}"'
    return "ok", version


def _torch() -> _Result:
    import torch

    from thyro_core.training.device import choose_precision, job_device

    device = job_device(1)
    precision = choose_precision("auto", device)
    return "ok", f"{torch.__version__}; precision auto is {precision} on {device.type}"


def _torchvision() -> _Result:
    from thyro_core.training.models import build

    build("resnet18", 224, 0)
    return "ok", f"{metadata.version('torchvision')} builds a resnet18"


def _images() -> _Result:
    from thyro_core.imaging.codecs import EXPECTED_CODECS, codecs

    readable, lacking = codecs()
    formats = f"PNG, JPEG, TIFF, BMP; DICOM: {', '.join(readable)}; not: {', '.join(lacking)}"
    missing = sorted(set(lacking) & set(EXPECTED_CODECS))
    if missing:
        return "warn", f"{formats}; for {', '.join(missing)} {_install(_DECODERS)}"
    return "ok", formats


def _gpu() -> _Result:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        return "ok", ", ".join(f"{gpu.name} {gigabytes(gpu.total_memory)}" for gpu in devices)
    if shutil.which("nvidia-smi"):
        cure = "check the driver with nvidia-smi, and install torch's CUDA build"
        return "warn", f"nvidia-smi is here, but torch {torch.__version__} sees no GPU; {cure}"
    return "ok", "none: training runs on the CPU"


def _ray() -> _Result:
    # In a process of its own: it can be stopped at the deadline, and Ray may end its process.
    command = [sys.executable, "-c", _RAY_PROBE]
    run = partial(subprocess.run, capture_output=True, text=True, check=False)
    try:
        process = run(command, timeout=_RAY_SECONDS)
    except subprocess.TimeoutExpired as error:
        msg = f"an embedded Ray ran no task within {_RAY_SECONDS:g} s"
        raise ThyroError(msg) from error
    if process.returncode:
        last = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        msg = f"an embedded Ray ran no task: {last}"
        raise ThyroError(msg)
    return "ok", f"{metadata.version('ray')}: {process.stdout.strip().splitlines()[-1]}"


def _prefect() -> _Result:
    from prefect.settings import get_current_settings

    version = metadata.version("prefect")
    url = get_current_settings().api.url
    if not url:
        return "ok", f"{version}; no PREFECT_API_URL: each run starts a server of its own"
    if not url.startswith(("http://", "https://")):
        return (
            "fail",
            f"{version}; PREFECT_API_URL: expected http://... or https://..., found {url}",
        )
    try:
        with urlopen(f"{url.rstrip('/')}/health", timeout=_SERVER_SECONDS):  # noqa: S310 - checked
            return "ok", f"{version}; the server at {url} answers"
    except HTTPError as error:
        error.close()
        cure = "correct PREFECT_API_URL (it ends in /api) or PREFECT_API_AUTH_STRING"
        return "fail", f"{version}; {url} answers {error.code}; {cure}"


def _round_trip(url: str) -> _Result:
    """Write, read, list and delete one small object, and leave no trace."""
    store = open_store(url)
    was_there = store.exists("")
    key, data = f"doctor/{uuid.uuid4().hex}", b"thyro doctor"
    try:
        store.write(key, data)
        checks = {"give back": store.read(key) == data, "list": key in store.keys("doctor")}
        store.delete(key)
        checks["delete"] = not store.exists(key)
    finally:
        _remove_folders(store, was_there=was_there)
    failing = ", ".join(verb for verb, good in checks.items() if not good)
    if failing:
        return "fail", f"{store.url} does not {failing} what was written; {_store_cure(url)}"
    return "ok", f"{store.url}: writes, reads, lists and deletes"


def _remove_folders(store: Store, *, was_there: bool) -> None:
    """Remove the empty folders that the probe made; object stores have none."""
    root = Path(store.root)
    if isinstance(store.fs, LocalFileSystem):
        new_paths = (
            [root / "doctor"] if was_there else [*sorted(root.rglob("*"), reverse=True), root]
        )
        for folder in new_paths:
            with suppress(OSError):
                folder.rmdir()


def _store_cure(url: str) -> str:
    s3 = "create the bucket; set AWS_ENDPOINT_URL (unless it is Amazon's) and AWS credentials"
    folder = "give a folder you may write to, or an s3:// URL, by --store or THYRO_STORE"
    return s3 if url.startswith("s3:") else folder


def _within(work: Callable[[], _Result]) -> _Result:
    """`work`'s result; an address that swallows every packet may keep it waiting without end.

    Raises:
        ThyroError: the time was up; or what `work` raised.
    """
    future: Future[_Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again where the result is waited for
            future.set_exception(error)

    # Not a pool: its threads would keep the program from ending.
    threading.Thread(target=run, daemon=True).start()
    try:
        return future.result(_ANSWER_SECONDS)
    except TimeoutError as error:
        if future.done():
            raise
        msg = f"no answer within {_ANSWER_SECONDS:g} s"
        raise ThyroError(msg) from error


def _pseudonyms() -> _Result:
    key = Settings().pseudonym_key
    Pseudonymiser(key)
    if key is None:
        return "warn", WITHOUT_KEY
    return "ok", "THYRO_PSEUDONYM_KEY is set; its patients and exams have keyed pseudonyms"


def _patient_for_seconds() -> Settings:
    return Settings().model_copy(update={"store_patience": _SERVER_SECONDS})


def _archive() -> _Result:
    batch = Settings().screening_batch
    if batch is None or not is_archive(batch):
        return "ok", "none: THYRO_SCREENING_BATCH names no DICOMweb archive"
    from thyro_core.archive.probe import probe_source

    return "ok", probe_source(batch, _patient_for_seconds())


def _results() -> _Result:
    target = Settings().results_to
    if target is None:
        return "ok", "none are sent: THYRO_RESULTS_TO names no archive"
    from thyro_core.archive.probe import probe_target

    return "ok", probe_target(target, _patient_for_seconds())


def _disk(url: str) -> _Result:
    fs, root = filesystem(url)
    if not isinstance(fs, LocalFileSystem):
        return "ok", "the store is not on a disk of this machine"
    folder = next(path for path in (Path(root), *Path(root).parents) if path.exists())
    free = shutil.disk_usage(folder).free
    state: State = "ok" if free >= _STUDY_BYTES else "warn" if free >= _LEAST_BYTES else "fail"
    cure = f"; a default study may take {gigabytes(_STUDY_BYTES)}: free some, or set --store"
    return state, f"{gigabytes(free)} free at {folder}{'' if state == 'ok' else cure}"


def _weights(architecture: str, mirror: str | None) -> _Result:
    file = f"{architecture}.safetensors"
    otherwise = "torchvision's download is tried, and without it training starts at random"
    if not mirror:
        cure = f"set THYRO_WEIGHTS to the URL of a folder with {file}"
        return "warn", f"THYRO_WEIGHTS names no mirror: {otherwise}; {cure}"
    url = mirror if mirror.endswith(".safetensors") else f"{mirror.rstrip('/')}/{file}"

    def find_file() -> _Result:
        fs, path = filesystem(url)
        try:
            fs.info(path)
        except FileNotFoundError:
            return "warn", f"expected {url}, found no such file: {otherwise}; copy the file there"
        return "ok", url

    return _within(find_file)
