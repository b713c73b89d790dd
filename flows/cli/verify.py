"""`thyro verify`: whether a store's studies, nights and evaluations are consistent."""

from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import track

from flows.cli.console import err, say
from flows.cli.options import StoreUrl, open_store_at
from thyro_core.errors import InputError, ThyroError, amount


def verify(
    study_id: Annotated[
        str | None,
        typer.Argument(
            help="The study, or enough of its id; default: all, nights and evaluations."
        ),
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Check hashes, completeness and leakage, and that figures and sums follow from their rows."""
    with err.status("starting"):
        from thyro_core.screening.verify import has_nights, verify_nights
        from thyro_core.study.plan import find_study, study_ids
        from thyro_core.study.verify.verify import verify_study
        from thyro_core.validation.evaluate import evaluation_ids
        from thyro_core.validation.verify import verify_evaluations

        opened_store = open_store_at(store)
    ids = [find_study(opened_store, study_id)] if study_id else study_ids(opened_store)
    work = [(name, verify_study(opened_store, name)) for name in ids]
    if not study_id and has_nights(opened_store):
        work.append(("screening", verify_nights(opened_store)))
    if not study_id and evaluation_ids(opened_store):
        work.append(("evaluation", verify_evaluations(opened_store)))
    if not work:
        msg = (
            f"{opened_store.url}: expected a study, a night or an evaluation to verify, found "
            "none; check --store"
        )
        raise InputError(msg)
    failures = total = 0
    for name, checks in work:
        description = f"verifying {name}"
        for check in track(checks, description=description, console=err, transient=True):
            mark = "[green]ok[/]  " if check.is_passed else "[red]FAIL[/]"
            say(f"{mark} {name} {check.name}: {escape(check.detail)}")
            failures += not check.is_passed
            total += 1
    if failures:
        msg = f"{amount(failures, 'check')} failed; the lines marked FAIL say what and where"
        raise ThyroError(msg)
    say(f"all {amount(total, 'check')} passed")
