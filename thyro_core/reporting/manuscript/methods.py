"""A draft of a paper's methods, filled from the study's config and tables."""

import re

from thyro_core import NOTICE
from thyro_core.evaluation.display_names import ARCHITECTURE_NAMES
from thyro_core.evaluation.uncertainty import MIN_SPLITS
from thyro_core.reporting.html import render_page
from thyro_core.reporting.manuscript.bibliography import citation_key
from thyro_core.reporting.network_references import network_reference
from thyro_core.reporting.queries import Tables
from thyro_core.reporting.references import references
from thyro_core.reporting.sections.cohort import cohort
from thyro_core.reporting.sections.provenance import provenance
from thyro_core.study.plan import StudyPlan


def methods(tables: Tables, plan: StudyPlan) -> str:
    """Markdown, with citations as `[@key]` of the exported `references.bib`.

    Args:
        tables: of the study.
        plan: the study.
    """
    architectures = plan.config.architectures
    keys = {each.citation: citation_key(each) for each in references(architectures)}
    origin = provenance(tables, plan)
    text = render_page(
        "methods.md",
        plan=plan,
        config=plan.config,
        notice=NOTICE,
        least_splits=MIN_SPLITS,
        cohort=cohort(tables, is_null=plan.config.permute_labels),
        labels=ARCHITECTURE_NAMES,
        sides={
            name: side
            for name in architectures
            if (side := plan.config.side(name)) != plan.config.image_size
        },
        networks={name: network_reference(name).citation for name in architectures},
        has_tokens=any(name.startswith("vit_") for name in architectures),
        versions=origin.versions,
        commits=origin.commits,
        cite=lambda citation: f"[@{keys[citation]}]",
        number=lambda value: f"{value:g}",
        percent=lambda share: f"{100 * share:g} %",
    )
    return re.sub(r"\n{3,}", "\n\n", text)
