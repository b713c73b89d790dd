"""python run.py IMAGE...

Research use only: this model is no medical device, has not been validated for clinical use, and no
diagnosis or treatment may rest on what this prints. Needs torch, torchvision, safetensors, Pillow.
"""

import json
import sys
from pathlib import Path

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
        grey = Image.open(path).convert("L").resize((side, side), Image.Resampling.BILINEAR)
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
