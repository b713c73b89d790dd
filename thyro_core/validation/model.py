"""Which model a name stands for: the champion, a promoted one, or the ensemble of a study."""

from pathlib import Path

from thyro_core.config import IngestConfig, ViewConfig
from thyro_core.errors import IncompleteStudyError, InputError
from thyro_core.registry.build import BundleSpec, make_bundle
from thyro_core.registry.bundle import Bundle, load_bundle
from thyro_core.registry.champion import champion
from thyro_core.registry.promote import chosen_architecture
from thyro_core.store.keys import table_key
from thyro_core.store.store import Store
from thyro_core.study.lifecycle import unfinished_runs
from thyro_core.study.plan import find_study, load_current_plan
from thyro_core.validation.config import ModelChoice

CHAMPION = "champion"


def find_model(store: Store, choice: ModelChoice, scratch: Path) -> Bundle:
    """The model to evaluate; a study's ensemble is bundled as promotion would, and not promoted.

    Args:
        store: holds it.
        choice: its name.
        scratch: node-local folder.

    Raises:
        InputError: there is no such model or study, or the study's labels are permuted, or it kept
            no models.
        IncompleteStudyError: the study is not finished.
    """
    if choice.model == CHAMPION:
        return load_bundle(store, champion(store))
    if choice.model.startswith("b"):
        return load_bundle(store, choice.model)
    plan = load_current_plan(store, find_study(store, choice.model))
    if plan.config.permute_labels:
        msg = (
            f"study {plan.study_id}: expected a study of true labels, found permuted ones; its "
            "networks learned chance: evaluate a study without permute_labels"
        )
        raise InputError(msg)
    architecture = chosen_architecture(plan, choice.architecture)
    has_metrics = store.exists(table_key("metrics", study_id=plan.study_id))
    if unfinished_runs(store, plan) or not has_metrics:
        msg = (
            f"study {plan.study_id}: expected a finished study, found one with runs or tables to "
            "go; start its `thyro study` command again"
        )
        raise IncompleteStudyError(msg)
    return make_bundle(store, BundleSpec(plan, architecture, choice.sensitivity), scratch)


def with_view(rules: IngestConfig, bundle: Bundle) -> IngestConfig:
    """The rules of an ingest that shows a model what it learned to see of a picture.

    Args:
        rules: as they were given; a key of the view that is left at its default is the model's.
        bundle: the model.

    Raises:
        InputError: a key asks for another view.
    """
    default, own = ViewConfig(), bundle.view
    for name in ViewConfig.model_fields:
        value, own_value = getattr(rules, name), getattr(own, name)
        if value not in {own_value, getattr(default, name)}:
            msg = (
                f"{name}: expected {own_value}, which model {bundle.model_id} learned to see, "
                f"found {value}; leave the key out"
            )
            raise InputError(msg)
    return IngestConfig.model_validate(
        rules.model_dump() | {name: getattr(own, name) for name in ViewConfig.model_fields}
    )
