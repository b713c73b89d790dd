"""What TRIPOD+AI and CLAIM 2024 ask for, and where a study's report answers it.

The program answers only what it knows of its own runs. Everything else is for the authors, however
simple it looks: an item is never ticked because a text could be put beside it.
"""

import csv
import io
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

ChecklistStatus = Literal["report", "report and authors", "for the authors", "not done"]
"""`report`: answered in the section named; `report and authors`: the section has a part of it;
`not done`: the study has no such thing."""

_TRIPOD, _CLAIM = "TRIPOD+AI", "CLAIM 2024"


@dataclass(frozen=True)
class ChecklistItem:
    """An item of a reporting standard, in this program's words."""

    standard: str
    item: str
    """Its number there."""
    topic: str
    status: ChecklistStatus
    section: str
    """Anchor of the report's section that answers it; empty: none does."""
    remark: str
    """What the section has, or what the authors must add."""


@dataclass(frozen=True)
class _Rule:
    """How an item is answered where the report has the section."""

    standard: str
    item: str
    topic: str
    section: str = ""
    remark: str = ""
    missing: str = ""
    """What the authors must add to the section; empty: nothing."""
    absent: str = ""
    """Why the study has no such thing if the section is not there; empty: the authors may."""
    by_patients: str = ""
    """What the section has of a set whose patients are known; empty: the same."""
    still_missing: str = ""
    """What the authors must add to that."""


def _tripod(*values: str, **more: str) -> _Rule:
    return _Rule(_TRIPOD, *values, **more)


def _claim(*values: str, **more: str) -> _Rule:
    return _Rule(_CLAIM, *values, **more)


_RULES: tuple[_Rule, ...] = (
    _tripod("1", "Title: development or evaluation, population, outcome", "top",
            "images, classes and internal validation", missing="the population"),
    _tripod("2", "Abstract: its own checklist"),
    _tripod("3a", "Healthcare context and existing models"),
    _tripod("3b", "Target population, purpose and users"),
    _tripod("3c", "Known health inequalities"),
    _tripod("4", "Objectives"),
    _tripod("5a", "Sources of data and how representative they are"),
    _tripod("5b", "Dates of the data"),
    _tripod("6a", "Setting, number and location of centres"),
    _tripod("6b", "Eligibility criteria", "cohort", "exclusions by rule, with counts",
            missing="who was eligible before the images were collected"),
    _tripod("6c", "Treatments"),
    _tripod("7", "Data preparation and quality checks", "provenance",
            "size, grey conversion and bounds of quality in the config",
            missing="what was done to the images before they came to this program, and whether it "
            "was alike in groups of people"),
    _tripod("8a", "Outcome: definition and assessment"),
    _tripod("8b", "Outcome: who judged it"),
    _tripod("8c", "Outcome: blinding"),
    _tripod("9a", "Choice of predictors", "provenance", "what the config says of the image"),
    _tripod("9b", "Predictors: definition and measurement",
            missing="devices and settings of the images"),
    _tripod("9c", "Predictors: who judged them", "limits",
            "someone chose the images; the program itself asks nobody",
            missing="who chose and cropped them"),
    _tripod("10", "Sample size and how it was arrived at"),
    _tripod("11", "Missing data", "cohort",
            "images without a label and files that cannot be read, with counts",
            missing="images that never came to this program"),
    _tripod("12a", "How data were divided for development and evaluation", "cohort",
            "parts of each split"),
    _tripod("12b", "Handling of predictors", "provenance", "size and augmentation in the config"),
    _tripod("12c", "Type of model, building, internal validation", "provenance",
            "architectures, weights and all settings; splits in the cohort's section",
            missing="why these architectures"),
    _tripod("12d", "Heterogeneity between clusters", "subgroups",
            "AUC by group, with a test where two groups of a column are large enough",
            missing="which column is a cluster, such as the centre",
            absent="centres are not told apart"),
    _tripod("12e", "Measures and plots of performance", "performance",
            "each by name, here and in the sections that follow", missing="why these"),
    _tripod("12f", "Updating of the model", "calibration",
            "slope and intercept of the ensembles, fitted on other groups"),
    _tripod("12g", "How predictions were made for the evaluation", "provenance",
            "the runs, their versions and seeds"),
    _tripod("13", "Class imbalance", "provenance", "weight of the malignant class by run",
            missing="why, and what it does to probabilities"),
    _tripod("14", "Fairness", "subgroups", "figures in the subgroups of the config",
            missing="which subgroups matter, and what follows"),
    _tripod("15", "Output of the model and its threshold", "brief",
            "probability of malignant, and the declared threshold",
            missing="why this threshold"),
    _tripod("16", "Differences between development and evaluation data", "limits",
            "both are parts of one image set"),
    _tripod("17", "Ethics"),
    _tripod("18a", "Funding"),
    _tripod("18b", "Conflicts of interest"),
    _tripod("18c", "Protocol"),
    _tripod("18d", "Registration"),
    _tripod("18e", "Data sharing"),
    _tripod("18f", "Code sharing", "provenance", "versions and commit of the code",
            missing="where the code is to be had"),
    _tripod("19", "Patient and public involvement"),
    _tripod("20a", "Flow of participants", "cohort", "diagram and counts of images",
            missing="the way of patients to images",
            by_patients="diagram and counts of images and of their patients",
            still_missing="the way of patients to images"),
    _tripod("20b", "Characteristics of the participants", "cohort", "of the images by class",
            missing="of the patients"),
    _tripod("20c", "Development against evaluation data", "cohort", "classes by part",
            missing="of the patients"),
    _tripod("21", "Participants and outcomes by analysis", "cohort", "images by part and class",
            missing="patients, and those with the outcome, by analysis",
            by_patients="images and patients by part and class, in the diagram"),
    _tripod("22", "The full model", "provenance", "all settings, and hashes of starting weights",
            missing="where the model is to be had"),
    _tripod("23a", "Performance with intervals", "performance", "over splits, and of the ensembles",
            missing="of key subgroups, where the config names none"),
    _tripod("23b", "Heterogeneity of performance", "subgroups",
            "AUC by group, with a test where two groups of a column are large enough",
            missing="which column is a cluster, such as the centre",
            absent="centres are not told apart"),
    _tripod("24", "Results of updating", "calibration", "raw and calibrated side by side",
            missing="slope and intercept of the model that is used"),
    _tripod("25", "Interpretation", "brief", "against chance and the paper",
            missing="fairness, and other evidence"),
    _tripod("26", "Limitations", "limits", "those that the program knows",
            missing="those of the data"),
    _tripod("27a", "Use: input of poor quality"),
    _tripod("27b", "Use: what users must do and know"),
    _tripod("27c", "Next steps and generalisability"),
    _claim("1", "Title: the kind of artificial intelligence", "top", "the networks by name",
           missing="the category, such as deep learning"),
    _claim("2", "Abstract: design, methods, results, conclusions"),
    _claim("3", "Background, intended use and role"),
    _claim("4", "Aims and hypotheses"),
    _claim("5", "Prospective or retrospective"),
    _claim("6", "Goal of the study"),
    _claim("7", "Sources of data"),
    _claim("8", "Inclusion and exclusion criteria", "cohort", "exclusions by rule, with counts",
           missing="who was eligible before the images were collected"),
    _claim("9", "Preprocessing", "provenance", "size, grey conversion and normalisation",
           missing="what was done to the images before they came to this program"),
    _claim("10", "Selection of subsets of the data", "cohort",
           "images left out by rule, with counts; the others go in whole",
           missing="what was left or cut out before the images came to this program"),
    _claim("11", "De-identification"),
    _claim("12", "Missing data", "cohort", "images without a label and unreadable files",
           missing="images that never came to this program"),
    _claim("13", "Image acquisition"),
    _claim("14", "Reference standard: definition"),
    _claim("15", "Reference standard: rationale"),
    _claim("16", "Reference standard: who annotated"),
    _claim("17", "Annotation of the test set: how and with what"),
    _claim("18", "Variability between and within annotators"),
    _claim("19", "How images were assigned to parts", "cohort", "the scheme and its parts"),
    _claim("20", "Level at which parts are disjoint", "leakage", "what stands on both sides"),
    _claim("21", "Intended sample size"),
    _claim("22", "The model", "provenance", "architectures by name, input size",
           missing="a reference of each architecture"),
    _claim("23", "Software", "provenance", "packages and versions"),
    _claim("24", "Starting weights", "provenance", "origin and hash"),
    _claim("25", "Training", "provenance", "all settings, seeds and runs"),
    _claim("26", "Selection of the final model", "provenance",
           "none is selected: the last epoch is tested"),
    _claim("27", "Ensembles", "calibration",
           "mean over the networks whose split tested an image"),
    _claim("28", "Metrics", "performance", "each by name, and the threshold", missing="why these"),
    _claim("29", "Significance and uncertainty", "performance",
           "how each interval is made; how tests are corrected stands beside each"),
    _claim("30", "Robustness and sensitivity",
           absent="no figure is worked out anew on noisier, darker or otherwise other images"),
    _claim("31", "Explainability and its validation", "trust",
           "Grad-CAM with baselines and randomised weights",
           missing="what the maps are meant to explain, to whom, and whether readers judged them"),
    _claim("32", "Evaluation on internal data", "performance", "test parts of the splits"),
    _claim("33", "Testing on external data", absent="no image of another source is tested"),
    _claim("34", "Registration of the trial"),
    _claim("35", "Included and excluded", "cohort", "diagram and counts of images",
           missing="of patients or examinations excluded before",
           by_patients="diagram and counts of images and of their patients",
           still_missing="of patients or examinations excluded before"),
    _claim("36", "Characteristics in each part", "cohort", "classes by part",
           missing="demographic and clinical ones",
           by_patients="images and patients by class and part, in the diagram",
           still_missing="demographic and clinical ones"),
    _claim("37", "Performance and uncertainty", "performance", "with intervals"),
    _claim("38", "Diagnostic performance and its precision", "performance", "with intervals"),
    _claim("39", "Analysis of failures", "gallery", "wrong calls with their maps, chosen by rule",
           missing="why they went wrong"),
    _claim("40", "Limitations", "limits", "those that the program knows",
           missing="those of the data"),
    _claim("41", "Implications for practice"),
    _claim("42", "Protocol and technical details"),
    _claim("43", "Availability of software, model and data", "provenance",
           "versions and commit of the code", missing="where they are to be had"),
    _claim("44", "Funding"),
)  # fmt: skip


def checklist(sections: Collection[str], *, has_patients: bool = False) -> list[ChecklistItem]:
    """Every item of TRIPOD+AI (2024) and of CLAIM (2024), in their order.

    Args:
        sections: anchors of the report's sections that have something to show; an item whose
            section is not among them is for the authors.
        has_patients: whether the report knows whose images these are; without that it answers for
            images alone.

    Sources: Collins et al., "TRIPOD+AI statement", BMJ 385 (2024); Tejani et al., "Checklist for
    Artificial Intelligence in Medical Imaging (CLAIM): 2024 Update", Radiology: Artificial
    Intelligence 6 (2024).
    """
    return [_answer(rule, sections, has_patients) for rule in _RULES]


def _answer(rule: _Rule, sections: Collection[str], has_patients: bool) -> ChecklistItem:
    answer, missing = rule.remark, rule.missing
    if has_patients and rule.by_patients:
        answer, missing = rule.by_patients, rule.still_missing
    status: ChecklistStatus = "for the authors"
    section, remark = "", f"the authors add: {missing}" if missing else ""
    if rule.section in sections:
        section = rule.section
        status = "report and authors" if missing else "report"
        remark = "; ".join(part for part in (answer, remark) if part)
    elif rule.absent:
        status, remark = "not done", rule.absent
    return ChecklistItem(rule.standard, rule.item, rule.topic, status, section, remark)


def checklist_csv(items: Collection[ChecklistItem]) -> bytes:
    """The list as CSV in UTF-8 with a head: standard, item, topic, status, section, remark."""
    text = io.StringIO()
    names = ("standard", "item", "topic", "status", "section", "remark")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for item in items:
        place = f"report.html#{item.section}" if item.section else ""
        writer.writerow([item.standard, item.item, item.topic, item.status, place, item.remark])
    return text.getvalue().encode()
