"""The page of all screened nights, and the page that asks for the password: for `thyro serve`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from thyro_core import NOTICE
from thyro_core.reporting.html import render_page, template_text
from thyro_core.reporting.worklist import ServedPage, page_policy, worklist_page
from thyro_core.screening.feedback import OPINION, agreement, agreement_sentence, read_feedback
from thyro_core.screening.rules import Totals, date_number, sum_totals, totals_of_row
from thyro_core.screening.worklist import read_worklist
from thyro_core.store.keys import table_prefix
from thyro_core.store.store import Store
from thyro_core.tables.io import read_table


@dataclass(frozen=True)
class NightTotals:
    """A night in the list."""

    date: str
    """ISO 8601."""
    totals: Totals


def nights(store: Store) -> list[NightTotals]:
    """All screened nights of a store, the latest first."""
    by_date: dict[int, list[Totals]] = {}
    for row in read_table(store, "screening_batches").to_pylist():
        by_date.setdefault(row["date"], []).append(totals_of_row(row))
    return [
        NightTotals(f"{str(number)[:4]}-{str(number)[4:6]}-{str(number)[6:]}", sum_totals(totals))
        for number, totals in sorted(by_date.items(), reverse=True)
    ]


def nights_page(store: Store, csrf: str, *, has_password: bool) -> str:
    """The list of nights, with how far readers agree."""
    return _page("nights.html", csrf=csrf, has_password=has_password, nights=nights(store),
                 agreement=_agreement_lines(agreement(store)), opinion=OPINION)  # fmt: skip


def login_page(csrf: str, fault: str = "") -> str:
    """The form that asks for initials and password; `fault`: why the last try was refused."""
    return _page("login.html", csrf=csrf, fault=fault)


@dataclass(frozen=True)
class Reader:
    """Who asks for a page.

    Attributes:
        csrf: the token that each post must carry.
        who: the reader's initials.
        has_study_links: whether rows link to their studies.
    """

    csrf: str
    who: str
    has_study_links: bool = False


def served_worklist(store: Store, date: str, reader: Reader, *, viewer: str | None) -> str | None:
    """The worklist of a date with the readers' verdicts; None: no such night.

    Raises:
        InputError: `date` is no date.
    """
    number = date_number(date)
    batches = read_table(store, "screening_batches", date=number)
    parts = store.keys(f"{table_prefix('screening')}/date={number}")
    if not parts or not batches.num_rows:
        return None
    totals = sum_totals([totals_of_row(row) for row in batches.to_pylist()])
    worklist = read_worklist(store, date, parts, totals, batches)
    served_page = ServedPage(
        reader.csrf, reader.who, read_feedback(store, date), reader.has_study_links
    )
    return worklist_page(worklist, viewer=viewer, served_page=served_page)


def _agreement_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{row['model_id']}: {agreement_sentence(row)}" for row in rows]


def _page(template: str, **values: object) -> str:
    style = Markup(template_text("worklist.css"))  # noqa: S704 - our own file
    policy = page_policy(is_served=True)
    return render_page(template, style=style, policy=policy, notice=NOTICE, **values)
