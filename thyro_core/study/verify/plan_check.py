"""Whether a study's plan is the one that its id was made from, by this version's rules."""

from thyro_core.config import RECIPE
from thyro_core.store.keys import study_key
from thyro_core.study.plan import StudyPlan, make_plan


def plan_fault(plan: StudyPlan, own_id: str, recipe: object) -> tuple[str, str] | None:
    """What is wrong with a plan, and the cure; None: its study's id follows from its contents.

    Args:
        plan: as it was loaded, under the id that was looked up.
        own_id: the id that stands in its file.
        recipe: the version of the numerical recipe that stands in it.
    """
    key = study_key(plan.study_id)
    if recipe != RECIPE:
        cure = (
            "verify with the version that made the study; splits and figures of another recipe "
            "cannot be worked out again, so only hashes of files are checked"
        )
        return f"{key}: expected recipe {RECIPE}, found {recipe}", cure
    rebuilt = make_plan(plan.config, plan.manifest_id, plan.precision, plan.weights, plan.notes)
    if not rebuilt.study_id == own_id == plan.study_id:
        fault = f"{key}: it names study {own_id}, its contents make it {rebuilt.study_id}"
        return fault, "restore this file"
    return None
