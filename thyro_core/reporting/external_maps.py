"""The checks of a model's maps on external images, beside those of its study."""

from collections.abc import Sequence
from typing import NamedTuple

from thyro_core.explain.trust import localisation_finding
from thyro_core.reporting.queries import TableRow
from thyro_core.reporting.sections.maps import TrustAnswer, trust_answers
from thyro_core.validation.maps import MAP_MEASURES


class MapAnswer(NamedTuple):
    """One check here, and the same of the networks on their study's images."""

    answer: TrustAnswer
    own: TableRow | None


def map_answers(here: Sequence[TableRow], own: Sequence[TableRow]) -> list[MapAnswer]:
    """The checks in the order of `MAP_MEASURES`; none, if no map was made.

    Args:
        here: the evaluation's rows of `evaluation_maps`.
        own: rows of `cam_checks` of the model's study and architecture.
    """
    if not here:
        return []
    answers = trust_answers({(row["measure"], row["baseline"]): row for row in here}, MAP_MEASURES)
    by_check = {(row["measure"], row["baseline"]): row for row in own}
    return [
        MapAnswer(answer, by_check.get((answer.row["measure"], answer.row["baseline"])))
        if answer.row
        else MapAnswer(answer, None)
        for answer in answers
    ]


def empty_maps(here: Sequence[TableRow]) -> TableRow | None:
    """The row that says which share of the images drawn has an empty map; None: no map was made."""
    return next((row for row in here if row["measure"] == "is_empty"), None)


def map_finding(here: Sequence[TableRow], architecture: str, *, is_apart: bool) -> str:
    """Whether the maps are shown to find the nodule; empty without masks.

    Args:
        here: the evaluation's rows of `evaluation_maps`.
        architecture: the model's.
        is_apart: whether the model is shown to tell the classes apart on these images.
    """
    finding = localisation_finding([{**row.values, "architecture": architecture} for row in here])
    if finding and not is_apart:
        return (
            "The model is not shown to tell these images' classes apart, so that what its maps "
            "find explains nothing."
        )
    return finding
