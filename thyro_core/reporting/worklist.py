"""A night's worklist as a page for people.

The page is one file that asks for nothing from any network. Without its script it is a ranked
list; with it, rows can be sorted, filtered, enlarged and marked. It shows so many images of each
band, and says what it leaves out.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from thyro_core import NOTICE
from thyro_core.pseudonyms import EXAM_PREFIX
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS
from thyro_core.reporting.html import render_page, template_text
from thyro_core.reporting.worklist_exams import by_band, check_viewer, exams_of, viewer_url
from thyro_core.screening.drift import breaches_of
from thyro_core.screening.rules import BANDS, aside_sentence
from thyro_core.screening.worklist import MOST_PICTURES, Worklist, why
from thyro_core.store.keys import worklist_key
from thyro_core.store.store import Store

UNNOTICED_NOTE = (
    "What the checks do not notice: a picture is refused when its grey levels are not those of "
    "ultrasound, or when it is unlike the training images. Some grey photographs, most phone "
    "pictures of a monitor, and images of other organs or scanners pass both and are scored; "
    "their probability means nothing."
)
"""What a reader must know of each probability of a worklist."""


@dataclass(frozen=True)
class ServedPage:
    """What a server adds to the page of a date."""

    csrf: str
    """The token that each post must carry."""
    who: str
    """The reader's initials."""
    feedback: Sequence[Mapping[str, object]]
    """Readers' verdicts on the date's rows."""
    has_study_links: bool = False
    """Whether rows link to their studies, by the exams' pseudonyms."""


def write_worklist_page(store: Store, worklist: Worklist, viewer: str | None = None) -> None:
    """Write `worklist.html` beside the `worklist.csv` of the same date.

    Args:
        store: where it goes.
        worklist: what it shows.
        viewer: pattern of a viewer's addresses (THYRO_VIEWER_LINK); None: there is none.
    """
    page = worklist_page(worklist, viewer=viewer)
    store.write(worklist_key(worklist.date, "html"), page.encode())


def worklist_page(
    worklist: Worklist, *, viewer: str | None = None, served_page: ServedPage | None = None
) -> str:
    """The worklist as one self-contained HTML page.

    Args:
        worklist: what it shows.
        viewer: pattern of a viewer's addresses; None: there is none.
        served_page: None: a file of its own, which keeps what a reader says of its rows itself.
    """
    check_viewer(viewer)
    totals, rows, batches = worklist.totals, worklist.rows, worklist.batches
    counts = {
        "refer": totals.refer,
        "review": totals.review,
        "not scored": totals.rejected + totals.failed,
        "routine": totals.routine,
        "copy": totals.copies,
    }
    here = {band: sum(row["band"] == band for row in rows) for band in BANDS}
    return render_page(
        "worklist.html",
        date=worklist.date,
        counts=counts,
        here=here,
        exams=by_band(exams_of(rows)),
        pictures=worklist.pictures,
        thresholds=worklist.thresholds,
        promises=worklist.promises,
        has_pseudonyms=worklist.has_pseudonyms,
        totals=totals,
        batches=batches,
        runs=[row for row in batches if row["known"] is not None],
        breaches=[name for row in batches for name in breaches_of(row)],
        of_members=sorted(worklist.of_members),
        figures_of_members=FIGURES_OF_MEMBERS,
        notice=NOTICE,
        unnoticed=UNNOTICED_NOTE if totals.scored else None,
        why=why,
        aside_sentence=aside_sentence,
        small=probability_text,
        most_pictures=MOST_PICTURES,
        link=lambda row: viewer_url(viewer, row),
        study_link=_study_link if served_page and served_page.has_study_links else None,
        policy=page_policy(is_served=served_page is not None),
        style=Markup(template_text("worklist.css")),  # noqa: S704 - our own file
        script=Markup(template_text("worklist.js")),  # noqa: S704 - our own file
        data=_data(worklist, served_page),
    )


def _study_link(row: Mapping[str, object]) -> str | None:
    """Where the server says which study a row's exam is; None: no pseudonym of it is known."""
    exam = str(row["exam_id"] or "")
    return f"study/{exam}" if exam.startswith(EXAM_PREFIX) else None


def probability_text(value: float) -> str:
    """A probability, its spread or a threshold: three decimals, and never a false 0 or 1.

    Below 0.01 three digits, because thresholds of a high sensitivity lie there.
    """
    if value and value < 0.0005:
        return "< 0.001"
    if 0.9995 <= value < 1:
        return "> 0.999"
    return f"{value:.3g}" if 0 < value < 0.01 else f"{value:.3f}"


def page_policy(*, is_served: bool) -> str:
    """The Content-Security-Policy of the page: its own script and style, and pictures in it."""
    style, script = (_source_of(template_text(f"worklist.{suffix}")) for suffix in ("css", "js"))
    own = " connect-src 'self'; form-action 'self';" if is_served else " form-action 'none';"
    return (
        f"default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}';{own} "
        "base-uri 'none'"
    )


def _source_of(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _data(worklist: Worklist, served_page: ServedPage | None) -> Markup:
    """The script's data, as JSON that ends no element."""
    value = {
        "date": worklist.date,
        "served": served_page is not None,
        "csrf": served_page.csrf if served_page else "",
        "who": served_page.who if served_page else "",
        "feedback": list(served_page.feedback) if served_page else [],
    }
    return Markup(json.dumps(value).replace("<", "\\u003c"))  # noqa: S704 - escaped just now
