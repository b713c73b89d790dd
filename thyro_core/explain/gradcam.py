"""Grad-CAM: which part of an image a network's output rests on, for both classes, unscaled.

The map of class c is L = relu(sum_k alpha_k A_k), where alpha_k is the mean over cells of
dy_c / dA_k (Selvaraju et al. 2017, equations 1 and 2), A the output of the network's last stage
before pooling (`models.last_layer`) and y_c the logit of c. Both equations are computed by the
grad-cam package. Its driver is not used: it differentiates every parameter, takes one class a pass,
min-max-scales each image, so that magnitudes are lost, and swallows IndexErrors. Here the part
before A runs without gradients and only the tail behind it is differentiated, by A alone.

A is the output of `layer4` in ResNet18 and of `Mixed_7c` in Inception_v3, and of `features` in
AlexNet and VGG16: there the last convolution's, after its ReLU and max-pooling. Of the other
networks `training.anatomy` finds it. A vision transformer's tokens are laid out as the patches lie.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from thyro_core.config import CLASS_NAMES, Architecture
from thyro_core.explain.maps import check_maps
from thyro_core.training import torchvision_compat
from thyro_core.training.batches import Examples
from thyro_core.training.inference import image_batches
from thyro_core.training.models import body_and_head
from thyro_core.training.parts import feature_grid
from thyro_core.types import Float32Array


def grad_cams(
    model: nn.Module, architecture: Architecture, images: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits, and the raw Grad-CAM of either class, of one batch.

    Maps are not scaled: they are comparable between images, and one that is zero everywhere (no
    evidence for the class) stays so. Nothing is checked here, see `maps.check_maps`. No
    parameter and no gradient of the model changes; it ends in evaluation mode.

    Args:
        model: made by `models.build` for this architecture.
        architecture: which network it is.
        images: float32, b x 3 x side x side, normalised, on the model's device.

    Returns:
        Logits, float32, b x 2 (benign, malignant), and maps, float32, b x 2 x h x w, at least 0,
        indexed by target class; both on the CPU, detached.
    """
    model.eval()
    body, head = body_and_head(model, architecture)
    with torch.no_grad():
        features = body(images)
    return cams_of_features(head, features)


def cams_of_features(head: nn.Module, features: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and maps as `grad_cams` gives them, from the last feature map on.

    Args:
        head: the head of `models.body_and_head`, in evaluation mode.
        features: the body's output, without gradients: b x k x h x w, or a transformer's tokens.
    """
    features = features.detach().requires_grad_()
    with torch.enable_grad():
        logits = head(features)
        slopes = [_slope(logits, target, features) for target in range(len(CLASS_NAMES))]
    return logits.detach().float().cpu(), _equations(head, features, slopes)


def _slope(logits: Tensor, target: int, features: Tensor) -> Tensor:
    # Images do not mix in evaluation mode: the gradient of the sum is each image's own.
    (slope,) = torch.autograd.grad(logits[:, target].sum(), features, retain_graph=True)
    return slope


def _equations(tail: nn.Module, features: Tensor, slopes: Sequence[Tensor]) -> Tensor:
    """Equations 1 and 2 by the package, float32, b x 2 x h x w on the CPU."""
    torchvision_compat.ensure()
    from pytorch_grad_cam import GradCAM

    cam = GradCAM(tail, [])
    activations = feature_grid(features.detach()).cpu().numpy()
    grids = (feature_grid(slope).cpu().numpy() for slope in slopes)
    sums = [cam.get_cam_image(None, None, None, activations, grid) for grid in grids]
    return torch.from_numpy(np.maximum(np.stack(sums, axis=1), 0))


def predict_with_cams(
    model: nn.Module, architecture: Architecture, examples: Examples, device: torch.device
) -> tuple[Tensor, Float32Array]:
    """Logits and raw maps of every example.

    Args:
        model: made by `models.build` for this architecture, on the device.
        architecture: which network it is.
        examples: n images.
        device: where the model is.

    Returns:
        Logits as `inference.predict` gives them, float32 on the CPU, n x 2; maps as `grad_cams`
        gives them, float32, n x 2 x h x w (n x 2 x 0 x 0 without examples).

    Raises:
        CamError: a map is missing or not finite.
    """
    logits, maps = [torch.empty((0, len(CLASS_NAMES)))], []
    for images in image_batches(examples, device):
        batch = grad_cams(model, architecture, images)
        logits.append(batch[0])
        maps.append(batch[1])
    all_maps = (
        torch.cat(maps).numpy() if maps else np.empty((0, len(CLASS_NAMES), 0, 0), np.float32)
    )
    check_maps(all_maps, len(examples))
    return torch.cat(logits), all_maps
