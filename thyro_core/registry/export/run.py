"""python run.py IMAGE..., or of a model that sees nodules alone IMAGE@LEFT,TOP,WIDTH,HEIGHT...

Research use only: this model is no medical device, has not been validated for clinical use, and no
diagnosis or treatment may rest on what this prints. Needs torch, torchvision, safetensors, Pillow.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

try:
    from torchvision import models
except RuntimeError:  # torchvision's build is for CUDA and torch's is not: networks need neither
    _OPERATORS = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    for _name in ("nms", "qnms"):
        _ARGUMENTS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _OPERATORS.define(_name + _ARGUMENTS)  # type: ignore[no-untyped-call]
    from torchvision import models


def square(path: str, side: int, view: dict[str, Any]) -> Image.Image:
    """The network's input of a picture: grey, as the model learned to see it."""
    if view["clean"]:
        sys.exit("This model sees cleaned pictures, which this script cannot make: see README.md.")
    name, _, box = path.rpartition("@") if view["region"] == "nodule" else (path, "", "")
    if not name:
        sys.exit(f"{path}: expected IMAGE@LEFT,TOP,WIDTH,HEIGHT, as this model sees nodules alone")
    grey = Image.open(name).convert("L")
    if box:
        x, y, w, h = (float(text) for text in box.split(","))
        sides = max(0, math.floor(x)), max(0, math.floor(y)), math.ceil(x + w), math.ceil(y + h)
        left, top, right, bottom = sides[:2] + tuple(map(min, sides[2:], grey.size))
        more = round(view["region_margin"] * max(right - left, bottom - top))
        right, bottom = min(grey.width, right + more), min(grey.height, bottom + more)
        grey = grey.crop((max(0, left - more), max(0, top - more), right, bottom))
    if view["resize"] == "squash":
        return grey.resize((side, side), Image.Resampling.BILINEAR)
    size = [max(1, round(side * length / max(grey.size))) for length in grey.size]
    whole = Image.new("L", (side, side))
    small = grey.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    whole.paste(small, ((side - size[0]) // 2, (side - size[1]) // 2))
    return whole


def print_probabilities() -> None:
    """Print the calibrated probability of malignant of each image, a line of JSON each."""
    here = Path(__file__).resolve().parent
    facts = json.loads((here / "model.json").read_text(encoding="utf-8"))
    side, calibration = facts["input"]["side"], facts["calibration"]
    mean, sd = (torch.tensor(facts["input"][name]).view(1, 3, 1, 1) for name in ("mean", "sd"))
    members = []
    for name in facts["members"]:
        model = models.get_model(facts["architecture"], weights=None, **facts["options"])
        state = model.state_dict()
        state.update(load_file(here / name))
        model.load_state_dict(state)
        members.append(model.eval())
    for path in sys.argv[1:]:
        grey = square(path, side, facts["input"]["view"])
        pixels = torch.from_numpy(np.array(grey)).float().expand(1, 3, side, side) / 255
        with torch.inference_mode():
            logits = torch.stack([model((pixels - mean) / sd)[0] for model in members]).double()
        raw = logits.softmax(dim=1)[:, 1].mean()
        log_odds = calibration["intercept"] + calibration["slope"] * torch.logit(raw)
        probability = float(torch.sigmoid(log_odds))
        row = {"image": path, "prob_malignant": probability}
        sys.stdout.write(json.dumps(row | {"positive": probability >= facts["threshold"]}) + "\n")


if __name__ == "__main__":
    print_probabilities()
