"""A night's worklist as a page for people.

The page is one file without scripts that asks for nothing from any network, and shows so many
images of each band; it says what it leaves out.
"""

from thyro_core import NOTICE
from thyro_core.registry.bundle import FIGURES_OF_MEMBERS
from thyro_core.reporting.html import render_page
from thyro_core.screening.drift import breaches_of
from thyro_core.screening.rules import BANDS
from thyro_core.screening.worklist import MOST_PICTURES, Worklist, why
from thyro_core.store.keys import worklist_key
from thyro_core.store.store import Store

UNNOTICED = (
    "What the checks do not notice: a picture is refused when its grey levels are not those of "
    "ultrasound, or when it is unlike the training images. Some grey photographs, most phone "
    "pictures of a monitor, and images of other organs or scanners pass both and are scored; "
    "their probability means nothing."
)
"""What a reader must know of each probability of a worklist."""


def write_worklist_page(store: Store, worklist: Worklist) -> None:
    """Write `worklist.html` beside the `worklist.csv` of the same date."""
    store.write(worklist_key(worklist.date, "html"), worklist_page(worklist).encode())


def worklist_page(worklist: Worklist) -> str:
    """The worklist as one self-contained HTML page."""
    totals, rows, batches = worklist.totals, worklist.rows, worklist.batches
    counts = {
        "refer": totals.refer,
        "review": totals.review,
        "not scored": totals.rejected + totals.failed,
        "routine": totals.routine,
        "copy": totals.copies,
    }
    bands = [
        {"name": band, "count": counts[band], "rows": [row for row in rows if row["band"] == band]}
        for band in BANDS
    ]
    return render_page(
        "worklist.html",
        date=worklist.date,
        bands=bands,
        pictures=worklist.pictures,
        totals=totals,
        batches=batches,
        runs=[row for row in batches if row["known"] is not None],
        breaches=[name for row in batches for name in breaches_of(row)],
        of_members=sorted(worklist.of_members),
        figures_of_members=FIGURES_OF_MEMBERS,
        notice=NOTICE,
        unnoticed=UNNOTICED if totals.scored else None,
        why=why,
        most_pictures=MOST_PICTURES,
    )
