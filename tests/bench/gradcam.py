"""What Grad-CAM adds to a forward pass, and what the grad-cam package used plainly adds.

    python tests/bench/gradcam.py [--architecture resnet18] [--side 224] [--batch 8] [--rounds 7]

Times a plain forward pass, `grad_cams` (both classes) and the package on the whole network (one
class a call, so two calls) in turn, on the same images in one thread, and prints the medians and
their ratio to the forward pass. The aim for ResNet18 is a ratio of at most 1.15.
"""

import argparse
import copy
from collections.abc import Callable

import torch
from laps import header, measure, ratios, row, spread

from thyro_core.config import ARCHITECTURES
from thyro_core.explain.gradcam import grad_cams
from thyro_core.training import torchvision_compat
from thyro_core.training.batches import normalise
from thyro_core.training.models import LAST_CONV, build


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", choices=ARCHITECTURES, default="resnet18")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def ways(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    torchvision_compat.ensure()
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    name = options.architecture
    model = build(name, options.side, seed=1).eval().to(memory_format=torch.channels_last)
    images = normalise(torch.rand(options.batch, 1, options.side, options.side))
    hooked = copy.deepcopy(model)  # the package's hooks must not slow the other two
    package = GradCAM(hooked, [hooked.get_submodule(LAST_CONV[name])])

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return model(images)

    def plainly() -> None:
        for target in (0, 1):
            package(images, [ClassifierOutputTarget(target)] * options.batch)

    def ours() -> object:
        return grad_cams(model, name, images)

    return {"forward": forward, "grad_cams": ours, "package": plainly}


def main() -> None:
    options = arguments()
    torch.set_num_threads(options.threads)
    seconds = measure(ways(options), options.rounds)
    print(header("Grad-CAM", "images/s", "x forward"))
    for name, values in seconds.items():
        rates = [options.batch / value for value in values]
        slower = ratios(values, seconds["forward"])
        where = f"{options.architecture} {options.side}, {name}"
        print(row(where, spread(rates), spread(slower, 3)))


if __name__ == "__main__":
    main()
