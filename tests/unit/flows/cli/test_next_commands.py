"""What the end of `thyro study` says that can be done next."""

import pytest

from flows.cli.study import next_commands
from thyro_core.config import StudyConfig
from thyro_core.study.plan import StudyPlan
from thyro_core.training.pretrained import StartingWeights

TRAINED = StartingWeights("resnet18", "mirror: weights", "0" * 64, "weights/resnet18", None)
RANDOM = StartingWeights("resnet18", "none", None, None, None)


@pytest.mark.parametrize(
    ("start", "permuted", "promotes"),
    [(TRAINED, False, True), (RANDOM, False, False), (TRAINED, True, False)],
)
def test_promotion_is_offered_only_where_it_is_not_bound_to_be_refused(
    start: StartingWeights, permuted: bool, promotes: bool
) -> None:
    config = StudyConfig(architectures=("resnet18",), permute_labels=permuted)
    plan = StudyPlan("s01", config, "m0", "fp32", {"resnet18": start}, ())
    commands = ["report s01 --open", "verify s01", "promote s01"]
    assert next_commands(plan) == commands[: 3 if promotes else 2]
