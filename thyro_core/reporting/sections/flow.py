"""The report's flow diagram: from the files found to the parts of the splits, with patients."""

from markupsafe import Markup

from thyro_core.config import CLASS_NAMES
from thyro_core.reporting.cells import Cell
from thyro_core.reporting.figures.flow import FlowStep, flow_diagram
from thyro_core.reporting.sections.cohort import Cohort, CohortPart, Leakage
from thyro_core.reporting.sections.curves import Plot, Sheet, SheetCell, make_plot

_COUNT_NAMES = (*CLASS_NAMES, "images")


def flow_figure(cohort: Cohort, checks: Leakage) -> Plot:
    """The images from those found to the parts of the splits, with what leaves on the way.

    Args:
        cohort: the study's images.
        checks: for the number of splits.
    """
    figures, splits = cohort.figures, checks.figures["splits"]

    def line(what: str, name: str, patients: str = "") -> str:
        return _flow_line(what, figures[name]) + _of_patients(
            figures[patients or f"{name}_patients"]
        )

    reasons = [_flow_line(name, count) for name, count in cohort.reasons]
    leavers = [
        line(what, name)
        for name, what in (("unlabelled", "without a label"), ("outside", "in no split"))
        if figures[name].value
    ]
    which, heading = (" (true labels)", ["Labels permuted"]) if cohort.permutation else ("", [])
    included_lines = (
        line("Included", "included", "patients"),
        *(line(name + which, name) for name in CLASS_NAMES),
    )
    parts = {part.name: part for part in cohort.parts}
    everything = parts.pop("All")
    steps = [
        FlowStep(
            (line("Image files found", "found"),),
            (line("Excluded", "excluded"), *reasons) if figures["excluded"].value else (),
        ),
        FlowStep(included_lines, ("Take no part", *leavers) if leavers else ()),
        FlowStep((f"In each of {splits.text} splits", *heading, *_spans(everything))),
    ]
    boxes = [(name, *_spans(part)) for name, part in parts.items()]
    exclusion_rows: list[list[SheetCell]] = [
        [f"Excluded: {_in_words(name)}", count, ""] for name, count in cohort.reasons
    ]
    classes: list[list[SheetCell]] = [
        [f"Included, {name}{which}", figures[name], figures[f"{name}_patients"]]
        for name in CLASS_NAMES
    ]
    rows: list[list[SheetCell]] = [
        ["Found", figures["found"], figures["found_patients"]],
        ["Excluded", figures["excluded"], figures["excluded_patients"]],
        *exclusion_rows,
        ["Included", figures["included"], figures["patients"]],
        *classes,
        ["Included, without a label", figures["unlabelled"], figures["unlabelled_patients"]],
        ["Included with a label, in no split", figures["outside"], figures["outside_patients"]],
        ["In a split", cohort.coverage["images"], cohort.coverage["patients"]],
        ["Never in a test part", cohort.coverage["never"], cohort.coverage["never_patients"]],
    ]
    head: list[str | Markup] = ["Step", "Images", "Patients"]
    if not cohort.has_patients:
        head, rows = head[:2], [row[:2] for row in rows]
    svg = flow_diagram("plot-flow", steps, boxes)
    return make_plot("flow", svg, Sheet("Images at each step", head, rows))


def _in_words(reason: str) -> str:
    return reason.replace("_", " ")


def _flow_line(what: str, count: Cell) -> str:
    return f"{_in_words(what)}: {count.text}"


def _spans(part: CohortPart) -> list[str]:
    """Fewest and most images of each class in a part of the splits, and of their patients."""
    return [
        f"{name}: {_span(*images)}{_of_patients(*patients)}"
        for name, images, patients in zip(_COUNT_NAMES, part.counts, part.patients, strict=True)
    ]


def _of_patients(*ends: Cell) -> str:
    """Nothing where no patient is known."""
    if not ends[-1].value:
        return ""
    patients = "patient" if ends[-1].value == 1 else "patients"
    return f" ({_span(ends[0], ends[-1])} {patients})"


def _span(low: Cell, high: Cell) -> str:
    return low.text if low.value == high.value else f"{low.text} to {high.text}"
