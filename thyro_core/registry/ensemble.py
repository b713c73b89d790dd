"""A promoted model in use: its members loaded and checked, their mean and spread, embeddings."""

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from thyro_core.config import Architecture
from thyro_core.errors import InputError
from thyro_core.evaluation.calibration import Calibration
from thyro_core.evaluation.out_of_fold import ensemble_margin, sigmoid
from thyro_core.explain.gradcam import grad_cams
from thyro_core.explain.maps import check_maps
from thyro_core.registry.bundle import Bundle, damaged_file
from thyro_core.store.store import Store
from thyro_core.training.models import body_and_head, build, load_tensors
from thyro_core.training.parts import feature_grid
from thyro_core.types import Float32Array, FloatArray


@dataclass(frozen=True)
class EnsembleScores:
    """An ensemble's predictions for b images; float64."""

    probability: FloatArray
    """(b,), calibrated probability of malignant."""
    raw: FloatArray
    """(b,), mean over members of their softmax probability of malignant."""
    sd: FloatArray
    """(b,), standard deviation over members (ddof 1) of the calibrated probability that each alone
    would give; NaN for one member."""
    members: FloatArray
    """(b, m), these probabilities."""


def load_members(bundle: Bundle, store: Store, scratch: Path) -> list[nn.Module]:
    """The members' networks on the CPU, in evaluation mode, channels last, without gradients.

    Each file is fetched once per node and checked against the card each time.

    Args:
        bundle: the model.
        store: the store it was loaded from.
        scratch: node-local folder for the files of a remote store.

    Raises:
        InputError: a file is gone, or is not the one on the card.
    """
    # Drawing VGG16's random start takes seconds: once is enough, all of it is replaced.
    pattern = build(bundle.architecture, bundle.side, seed=0)
    return [_member(bundle, key, store, scratch, pattern) for key in bundle.members]


def member_file(bundle: Bundle, key: str, store: Store, scratch: Path) -> Path:
    """A member's weights on this node, checked against the card.

    Args:
        bundle: the model.
        key: one of its members.
        store: the store it was loaded from.
        scratch: node-local folder for the files of a remote store.

    Raises:
        InputError: the file is gone, or is not the one on the card.
    """
    sha256 = bundle.card["files"][key.rpartition("/")[2]]
    try:
        path = store.local(key, scratch)
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise damaged_file(store.path(key), sha256, None) from error
    if actual != sha256:
        raise damaged_file(str(path), sha256, actual)
    return path


def _member(bundle: Bundle, key: str, store: Store, scratch: Path, pattern: nn.Module) -> nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = member_file(bundle, key, store, scratch)
    model = copy.deepcopy(pattern)
    try:
        load_tensors(model, load_file(path))
    except (RuntimeError, SafetensorError) as error:
        msg = f"{path}: expected weights of {bundle.architecture}, found others: {error}"
        raise InputError(msg) from error
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def score_batch(
    members: Sequence[nn.Module], images: Tensor, calibration: Calibration
) -> EnsembleScores:
    """Scores of one batch by one forward pass of each member.

    Args:
        members: m networks with two outputs (benign, malignant), in evaluation mode.
        images: float32, b x 3 x side x side, normalised, on the members' device.
        calibration: the bundle's.
    """
    with torch.inference_mode():
        logits = torch.stack([member(images) for member in members], dim=1)
    return ensemble_scores(logits.double().cpu().numpy(), calibration)


def ensemble_scores(logits: npt.ArrayLike, calibration: Calibration) -> EnsembleScores:
    """Scores from logits.

    Args:
        logits: (b, m, 2): benign, malignant of each member.
        calibration: the bundle's.
    """
    values = np.asarray(logits, dtype=np.float64)
    margins = values[..., 1] - values[..., 0]
    members = calibration.probability(margins)
    spread = members.shape[1] > 1
    sd = members.std(axis=1, ddof=1) if spread else np.full(len(members), np.nan)
    return EnsembleScores(
        probability=calibration.ensemble_probability(margins),
        raw=sigmoid(ensemble_margin(margins)),
        sd=sd,
        members=members,
    )


def mean_maps(
    members: Sequence[nn.Module], architecture: Architecture, images: Tensor
) -> Float32Array:
    """Members' mean raw Grad-CAM maps of one batch.

    Args:
        members: m networks in evaluation mode.
        architecture: theirs.
        images: float32, b x 3 x side x side, normalised, on the members' device.

    Returns:
        (b, 2, h, w); the second axis is the target class: benign, malignant.

    Raises:
        CamError: a map is missing or not finite.
    """
    of_members = [grad_cams(member, architecture, images)[1] for member in members]
    maps: Float32Array = torch.stack(of_members).mean(dim=0).cpu().numpy()
    check_maps(maps, len(images))
    return maps


def embedding(
    member: nn.Module, architecture: Architecture, images: Tensor
) -> npt.NDArray[np.float32]:
    """Mean over cells of a network's last feature map (`models.last_layer`).

    Args:
        member: a network in evaluation mode.
        architecture: which network it is.
        images: float32, b x 3 x side x side, normalised, on the member's device.

    Returns:
        (b, k), float32; k is the map's depth: 512 for ResNet18 and VGG16, 256 for AlexNet, 2048 for
        Inception_v3.
    """
    body, _ = body_and_head(member, architecture)
    with torch.inference_mode():
        return spatial_mean(body(images))


def spatial_mean(features: Tensor) -> npt.NDArray[np.float32]:
    """The embedding that a body's output stands for: mean over cells, float32, (b, k)."""
    return np.asarray(
        feature_grid(features).float().mean(dim=(2, 3)).cpu().numpy(), dtype=np.float32
    )
