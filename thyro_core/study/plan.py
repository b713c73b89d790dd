"""What a study will do: decided once, before any job, and kept with its results."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from thyro_core.config import RECIPE, StudyConfig, canonical_json, content_id
from thyro_core.errors import InputError
from thyro_core.store.keys import study_key
from thyro_core.store.store import Store
from thyro_core.training.pretrained import StartingWeights

PlannedPrecision = Literal["fp32", "bf16"]

NULL_PREFIX = "snull"
"""Begin of the id of a study with permuted labels."""

OWN_WEIGHTS_NOTE = (
    "training starts from weights that the config names: whether images of this study had a part "
    "in making them is not known; if they had, no figure here is one of unseen images"
)
NULL_NOTE = (
    "a null study: its labels are exchanged between groups at random, so that its figures are what "
    "chance gives, and say nothing of any network"
)


@dataclass(frozen=True)
class StudyPlan:
    """A study's config and the decisions that it leaves open."""

    study_id: str
    config: StudyConfig
    manifest_id: str
    precision: PlannedPrecision
    weights: Mapping[str, StartingWeights]
    notes: tuple[str, ...]
    """What a reader of the results must know, e.g. that no patient ids were given."""


def make_plan(
    config: StudyConfig,
    manifest_id: str,
    precision: PlannedPrecision,
    weights: Mapping[str, StartingWeights],
    notes: tuple[str, ...],
) -> StudyPlan:
    """Name a study by everything that changes its results.

    That is the config, the manifest, the arithmetic, the bytes of the starting weights and the
    version of the numerical recipe; where it runs, and the notes, are not part of the name.
    """
    # The results of `auto` are hashed below: the same bytes make the same study.
    choices = config.model_dump(mode="json", exclude={"precision", "weights"})
    study_id = content_id(
        NULL_PREFIX if config.permute_labels else "s",
        {
            "config": choices,
            "manifest_id": manifest_id,
            "precision": precision,
            "weights": {name: start.sha256 for name, start in weights.items()},
            "recipe": RECIPE,
        },
    )
    warnings = tuple(start.warning for start in weights.values() if start.warning)
    cautions = (NULL_NOTE,) if config.permute_labels else ()
    if config.weights not in {"auto", "imagenet", "none"}:
        cautions = (*cautions, OWN_WEIGHTS_NOTE)
    return StudyPlan(study_id, config, manifest_id, precision, weights, cautions + notes + warnings)


def save_plan(store: Store, plan: StudyPlan) -> None:
    """Write a plan to its study's folder; an existing one is kept."""
    key = study_key(plan.study_id)
    if not store.exists(key):
        store.write(key, _plan_json(plan).encode())


def load_plan(store: Store, study_id: str) -> StudyPlan:
    """The plan of a study of this store.

    Raises:
        InputError: there is no such study.
    """
    key = study_key(study_id)
    if not store.exists(key):
        existing = ", ".join(study_ids(store)) or "none"
        msg = (
            f"{store.url}: expected a study {study_id}, found {existing}; check the id and --store"
        )
        raise InputError(msg)
    plain = json.loads(store.read(key))
    return StudyPlan(
        study_id=plain["study_id"],
        config=StudyConfig.model_validate(plain["config"]),
        manifest_id=plain["manifest_id"],
        precision=plain["precision"],
        weights={name: StartingWeights(**start) for name, start in plain["weights"].items()},
        notes=tuple(plain["notes"]),
    )


def load_current_plan(store: Store, study_id: str) -> StudyPlan:
    """The plan of a study whose results follow from this version's rules.

    Raises:
        InputError: there is no such study, or another version of the numerical recipe made it:
            its tables may lack columns, and what follows from them would mix two sets of rules.
    """
    plan = load_plan(store, study_id)
    recipe = plan_recipe(store, study_id)
    if recipe != RECIPE:
        msg = (
            f"study {study_id}: expected recipe {RECIPE}, by which this version works, found "
            f"{recipe}; its tables can still be queried; for the rest use the version that made "
            "it, or start its `thyro study` command again, which makes a new study"
        )
        raise InputError(msg)
    return plan


def plan_recipe(store: Store, study_id: str) -> object:
    """The version of the numerical recipe that a study's plan names; None: it names none."""
    return json.loads(store.read(study_key(study_id))).get("recipe")


def study_ids(store: Store) -> list[str]:
    """Ids of all studies in a store, sorted."""
    folder = store.path("studies")
    if not store.fs.exists(folder):
        return []
    names = {str(path).rstrip("/").rsplit("/", 1)[-1] for path in store.fs.ls(folder, detail=False)}
    return sorted(name for name in names if store.exists(study_key(name)))


def find_study(store: Store, beginning: str = "") -> str:
    """The one study of a store whose id begins so.

    Args:
        store: where it lies.
        beginning: of its id, or the whole; empty: the store's only study.

    Raises:
        InputError: no study's id begins so, or several do.
    """
    ids = study_ids(store)
    matches = [name for name in ids if name.startswith(beginning)]
    if len(matches) == 1:
        return matches[0]
    expectation = f"a study {beginning}" if beginning else "a study"
    if matches:
        msg = f"{store.url}: expected one study, found {', '.join(matches)}; give enough of its id"
    else:
        existing = ", ".join(ids) or "none"
        msg = f"{store.url}: expected {expectation}, found {existing}; check the id and --store"
    raise InputError(msg)


def _plan_json(plan: StudyPlan) -> str:
    plain: dict[str, Any] = {
        "study_id": plan.study_id,
        "config": plan.config.model_dump(mode="json"),
        "manifest_id": plan.manifest_id,
        "precision": plan.precision,
        "weights": {name: asdict(start) for name, start in plan.weights.items()},
        "notes": list(plan.notes),
        "recipe": RECIPE,
    }
    return canonical_json(plain)
