"""A promoted model's scores by one forward pass of each member, to compare with."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thyro_core.registry.ensemble import EnsembleScores, ensemble_scores


def ensemble(members: Sequence[nn.Module], images: Tensor, temperature: float) -> EnsembleScores:
    """Scores of one batch of normalised images."""
    with torch.inference_mode():
        logits = torch.stack([member(images) for member in members], dim=1)
    return ensemble_scores(logits.double().cpu().numpy(), temperature)
