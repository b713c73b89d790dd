"""Starting weights: decided once per study, kept in the store, the same bytes for every job."""

import hashlib
import logging
import shutil
import socket
import tempfile
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from pickle import UnpicklingError
from ssl import SSLError
from typing import TYPE_CHECKING
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

import fsspec
from filelock import FileLock

from thyro_core.errors import InputError
from thyro_core.store.keys import weights_key
from thyro_core.store.store import Store, filesystem
from thyro_core.urls import redact, without_local_folders

if TYPE_CHECKING:
    from torch import Tensor

_LOG = logging.getLogger(__name__)
_SUFFIX = ".safetensors"
_TORCH_SUFFIXES = (".pth", ".pt")
_FILE_SUFFIXES = (_SUFFIX, *_TORCH_SUFFIXES)
# Where training programs keep the network's tensors in a file that holds more.
_STATE_KEYS = ("state_dict", "model_state_dict", "model")
_TIMEOUT = 10.0  # seconds without an answer after which a download counts as dead
# Not OSError as a whole: a full disk here must not end in random weights.
_NETWORK = (URLError, HTTPException, ConnectionError, TimeoutError, SSLError)
# All that torch's restricted unpickler was seen to raise on foreign bytes.
_NO_TENSORS = (UnpicklingError, RuntimeError, EOFError, AttributeError, TypeError, LookupError)


class _UnavailableError(Exception):
    """Weights cannot be had from one place; another may have them."""


@dataclass(frozen=True)
class StartingWeights:
    """What one architecture starts from.

    Attributes:
        architecture: The network.
        origin: `mirror: <url>`, `torchvision: <version>`, a URL, or `none` (random).
        sha256: SHA-256 of the safetensors file, hexadecimal; None: random.
        key: The file's key in the store; None: random.
        warning: What the person who runs the study must be shown; None: nothing.
    """

    architecture: str
    origin: str
    sha256: str | None = None
    key: str | None = None
    warning: str | None = None

    @property
    def display_origin(self) -> str:
        """The origin for a page that may travel: of a local path the file's name alone."""
        kind = "mirror: " if self.origin.startswith("mirror: ") else ""
        return kind + without_local_folders(self.origin.removeprefix(kind))


def resolve_weights(
    weights: str, architectures: Sequence[str], mirror: str | None, store: Store, scratch: Path
) -> dict[str, StartingWeights]:
    """Decide what each architecture starts from, and put the files into the store.

    Run it once per study, before any job; several processes may do so at once. Every node and
    every resume then starts from the same bytes. Only torchvision's download imports torch.

    Args:
        weights: `auto`: the mirror's file, else torchvision's download, else random with a
            warning. `imagenet`: the same, but never random. `none`: random. Anything else: URL of
            a folder or prefix that holds `<architecture>.safetensors`, or of one such file, or of
            one that PyTorch saved (`.pth`, `.pt`), of which only tensors are taken.
        architectures: The networks of the study.
        mirror: URL of the mirror (`THYRO_WEIGHTS`), a folder or prefix; None: there is none.
        store: Where the files are kept, under `paths.weights_key`.
        scratch: Node-local folder for downloads.

    Returns:
        Start by architecture, in the order given. Warnings are logged too.

    Raises:
        InputError: a named file is absent, damaged or not what the SHA-256 beside it says; or
            `imagenet` finds none.
    """
    if weights.endswith(_FILE_SUFFIXES) and len(architectures) > 1:
        msg = f"{redact(weights)}: expected a folder with <architecture>{_SUFFIX}, found one file"
        msg += f" for {', '.join(architectures)}; name the folder, or study one architecture"
        raise InputError(msg)
    scratch.mkdir(parents=True, exist_ok=True)
    starts = {
        name: _starting_weights(weights, name, mirror, store, scratch) for name in architectures
    }
    for warning in filter(None, (start.warning for start in starts.values())):
        _LOG.warning(warning)
    return starts


def load_weights(start: StartingWeights, store: Store, scratch: Path) -> dict[str, "Tensor"] | None:
    """The tensors an architecture starts from, out of the study's own copy.

    The copy is fetched once per node, however many jobs ask at once, and checked each time.

    Args:
        start: What `resolve` decided.
        store: The store it filled.
        scratch: Node-local folder for the copy.

    Returns:
        CPU tensors by torchvision's names, in the file's dtypes; None: start at random.

    Raises:
        InputError: the copy is gone, or its SHA-256 is not the recorded one.
    """
    if start.key is None:
        return None
    from safetensors.torch import load_file

    try:
        path = store.local(start.key, scratch)
        digest = _sha256(path)
    except FileNotFoundError as error:
        msg = (
            f"{store.path(start.key)}: expected the starting weights of {start.architecture} "
            f"({start.origin}), found no file; start the study again to have them copied"
        )
        raise InputError(msg) from error
    if digest != start.sha256:
        msg = (
            f"{path}: expected SHA-256 {start.sha256} (weights of {start.architecture}), found "
            f"{digest}; the object is damaged: delete {store.path(start.key)}, and this file if it "
            "is another, and start the study again"
        )
        raise InputError(msg)
    return dict(load_file(path))


def _starting_weights(
    weights: str, architecture: str, mirror: str | None, store: Store, scratch: Path
) -> StartingWeights:
    if weights == "none":
        return StartingWeights(architecture, "none")
    cure = f"the URL of a folder that holds {architecture}{_SUFFIX}"
    if weights not in {"auto", "imagenet"}:
        try:
            return _keep_url(weights, "", architecture, store, scratch)
        except _UnavailableError as error:
            msg = f"weights: {error}; choose auto, imagenet, none or {cure}"
            raise InputError(msg) from error
    start, reason = _pretrained_weights(architecture, mirror, store, scratch)
    if start is None and weights == "imagenet":
        msg = f"weights: expected ImageNet's for {architecture}, found none ({reason}); "
        msg += f"set THYRO_WEIGHTS to {cure}, or choose weights=auto or none"
        raise InputError(msg)
    warning = (
        f"{architecture} STARTS FROM RANDOM WEIGHTS, not from ImageNet's: expect far worse "
        f"results than the paper's ({reason}); set THYRO_WEIGHTS to {cure}"
    )
    return start or StartingWeights(architecture, "none", warning=warning)


def _pretrained_weights(
    architecture: str, mirror: str | None, store: Store, scratch: Path
) -> tuple[StartingWeights | None, str]:
    """The first start that can be had, and why those before it cannot."""
    reason = "THYRO_WEIGHTS names no mirror"
    if mirror:
        try:
            return _keep_url(mirror, "mirror: ", architecture, store, scratch), ""
        except _UnavailableError as error:
            reason = f"mirror THYRO_WEIGHTS: {error}"
    try:
        file, version = _torchvision_file(architecture, scratch / "torchvision")
    except _UnavailableError as error:
        return None, f"{reason}; torchvision's download: {error}"
    start = _keep(file, f"torchvision: {version}", architecture, store)
    warning = f"{architecture}: torchvision's weights used ({reason})" if mirror else None
    return replace(start, warning=warning), reason


def _keep_url(
    url: str, kind: str, architecture: str, store: Store, scratch: Path
) -> StartingWeights:
    if not url.endswith(_FILE_SUFFIXES):
        url = f"{url.rstrip('/')}/{architecture}{_SUFFIX}"
    public_url = redact(url)
    fs, path = filesystem(url)
    try:
        source = fs.open(path, "rb")
    except OSError as error:
        # Not the error's own text: it may hold the address with its password.
        msg = f"expected {public_url}, found {_open_fault(error)}"
        raise _UnavailableError(msg) from error
    with source, tempfile.NamedTemporaryFile(dir=scratch, prefix="weights-") as file:
        shutil.copyfileobj(source, file)
        file.flush()
        known_sha256, digest = _known_sha256(fs, path), _sha256(Path(file.name))
        if known_sha256 not in {None, digest}:
            msg = (
                f"{public_url}: expected SHA-256 {known_sha256}, as noted beside it, found {digest}"
            )
            raise InputError(msg + "; copy the file again")
        if not url.endswith(_TORCH_SUFFIXES):
            return _keep(Path(file.name), kind + public_url, architecture, store)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            conversion = Path(folder) / "safetensors"
            _convert(Path(file.name), conversion, public_url)
            return _keep(conversion, kind + public_url, architecture, store)


def _keep(file: Path, origin: str, architecture: str, store: Store) -> StartingWeights:
    """Copy a local safetensors file into the store, unless it is there."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy"):
            digest = _sha256(file)
    except SafetensorError as error:
        msg = f"{origin}: expected a safetensors file, found another or a damaged one ({error})"
        raise InputError(msg + "; convert it, or copy it again") from error
    key = weights_key(architecture, digest)
    if not store.exists(key):
        with store.writing(key) as target, file.open("rb") as source:
            shutil.copyfileobj(source, target)
    return StartingWeights(architecture, origin, digest, key)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _known_sha256(fs: fsspec.AbstractFileSystem, path: str) -> str | None:
    """The SHA-256 that `<file>.sha256` or `SHA256SUMS` beside a file notes, if any."""
    folder, _, name = path.rpartition("/")
    hash_words = _read_text(fs, f"{path}.sha256").split()[:1]
    for line in _read_text(fs, f"{folder}/SHA256SUMS").splitlines():
        digest, _, file = line.partition(" ")
        if PurePosixPath(file.strip(" *")).name == name:
            hash_words.append(digest)
    return hash_words[0].lower() if hash_words else None


def _read_text(fs: fsspec.AbstractFileSystem, path: str) -> str:
    try:
        return str(fs.cat_file(path).decode("utf-8", errors="replace"))
    except (FileNotFoundError, PermissionError):
        # Object stores answer "forbidden" for an absent object whose folder must not be listed.
        return ""


def _torchvision_file(architecture: str, folder: Path) -> tuple[Path, str]:
    """The official weights and their version, downloaded and converted once per node."""
    version, url = _torchvision_weights(architecture)
    name = PurePosixPath(urlsplit(url).path).stem
    target = folder / f"{name}{_SUFFIX}"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=folder) as temporary:
                download, conversion = Path(temporary) / "pth", Path(temporary) / "safetensors"
                _download(url, name.rpartition("-")[2], download)
                _convert(download, conversion, url)
                conversion.replace(target)
    return target, version


def _torchvision_weights(architecture: str) -> tuple[str, str]:
    """Version and URL of the weights that torchvision lists first: IMAGENET1K_V1 as a rule."""
    from thyro_core.training import torchvision_compat

    torchvision_compat.ensure()
    from torchvision.models import get_model_weights

    first = next(iter(get_model_weights(architecture)))
    return first.name, str(first.url)


def _download(url: str, sha256_prefix: str, target: Path) -> None:
    """Fetch a file and check it by the hash prefix that is part of torchvision's file names."""
    try:
        with (
            urllib.request.urlopen(url, timeout=_TIMEOUT) as response,  # noqa: S310 - torchvision's
            target.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
    except _NETWORK as error:
        msg = f"{url}: {_network_fault(error)}"
        raise _UnavailableError(msg) from error
    digest = _sha256(target)
    if not digest.startswith(sha256_prefix):
        msg = f"{url}: expected SHA-256 {sha256_prefix}..., found {digest[:16]}..."
        raise _UnavailableError(msg)


def _open_fault(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "that it may not be read"
    return "that it cannot be read"


def _network_fault(error: Exception) -> str:
    """Why nothing came, in words for somebody who reads a report."""
    # urllib wraps what its socket met.
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(error, HTTPError):
        return f"the server refused it (HTTP {error.code})"
    if isinstance(cause, socket.gaierror):
        return "the host's name is not known here; is there a way to the internet?"
    if isinstance(cause, TimeoutError):
        return f"no answer within {_TIMEOUT:g} s"
    if isinstance(cause, SSLError):
        return "the server's certificate is not trusted here"
    return "the connection failed or broke off"


def _convert(source: Path, target: Path, url: str) -> None:
    """A state dict saved by torch as safetensors; anything but tensors is refused unexecuted."""
    import torch
    from safetensors.torch import save_file

    try:
        state = torch.load(source, map_location="cpu", weights_only=True)
        for key in _STATE_KEYS:
            state = state[key] if isinstance(state.get(key), dict) else state
        # Tensors that share memory cannot be written as they are.
        save_file({name: value.clone().contiguous() for name, value in state.items()}, target)
    except _NO_TENSORS as error:
        msg = f"{url}: expected a file of named tensors only, found another; do not use it"
        raise InputError(msg) from error
