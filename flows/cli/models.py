"""`thyro promote` and `thyro models`: which model is in use, and how it came to be."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, note, out, print_json, result_table, say
from flows.cli.errors import parse_values, resumable
from flows.cli.options import Json, JsonLast, Reason, StoreUrl, StudyId, open_store_at
from thyro_core import NOTICE
from thyro_core.errors import InputError

if TYPE_CHECKING:
    from thyro_core.registry.champion import Change, ModelRow
    from thyro_core.store.store import Store

_ANY_STUDY = "s" + 16 * "0"
"""An id as they look, in place of the one that is not looked up yet."""


def promote(
    study_id: StudyId = "",
    architecture: Annotated[
        str, typer.Option(help="Which of its networks; first: the study's first one.")
    ] = "first",
    sensitivity: Annotated[
        float, typer.Option(help="What the sensitivity's lower confidence bound must reach.")
    ] = 0.95,
    bands: Annotated[
        str, typer.Option(help="How worklists are banded: threshold or conformal.")
    ] = "threshold",
    routine_share: Annotated[
        float,
        typer.Option(help="Conformal: most patients with a malignant image called routine."),
    ] = 0.05,
    refer_share: Annotated[
        float, typer.Option(help="Conformal: most patients with a benign image called refer.")
    ] = 0.1,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Even if the champion is better, or not comparable; give a reason."
        ),
    ] = False,
    reason: Reason = "",
    store: StoreUrl = None,
    as_json: JsonLast = False,
) -> None:
    """Bundle a study's models and make them the champion, unless they are worse."""
    with err.status("starting"):
        from thyro_core.registry.promote import PromotionConfig
        from thyro_core.study.plan import find_study

    values = {
        "study_id": _ANY_STUDY,
        "architecture": architecture,
        "sensitivity": sensitivity,
        "bands": bands,
        "routine_share": routine_share,
        "refer_share": refer_share,
        "force": force,
        "reason": reason,
    }
    config = parse_values(PromotionConfig, values, "promote")
    opened_store = open_store_at(store)
    # Last: what is wrong with the rest needs no store to be reported.
    config = config.model_copy(update={"study_id": find_study(opened_store, study_id)})
    with err.status("starting"):
        from flows.promote import promote as run
        from flows.serving.command_server import prefect_server

    doing = "verifying the study and making a model of it"
    with resumable(), err.status(doing), prefect_server():
        model_id = run(config, opened_store.url)
    _note_weakness(opened_store)
    _show_model(opened_store, model_id, as_json=as_json)


def _note_weakness(store: "Store") -> None:
    from thyro_core.registry.champion import champion_weakness

    if (weakness := champion_weakness(store)) is not None:
        note(weakness, err)


def _show_model(store: "Store", model_id: str, *, as_json: bool) -> None:
    from thyro_core.registry.bundle import load_bundle
    from thyro_core.registry.card_bands import promise_text
    from thyro_core.registry.card_pages import card_rows
    from thyro_core.registry.champion import read_champion
    from thyro_core.validation.listing import evaluation_lines

    card, champion = load_bundle(store, model_id).card, read_champion(store)
    is_champion = champion is not None and champion.model_id == model_id
    if as_json:
        last = champion.history[-1] if champion else None
        print_json(
            {
                "model_id": model_id,
                "champion": is_champion,
                "change": _change_json(last) if last else None,
                "card": dict(card),
                "evaluations": evaluation_lines(store, model_id),
                "store": store.url,
                "notice": NOTICE,
            }
        )
        return
    table = result_table("", "95 % interval in brackets", title=f"Model {model_id}")
    for name, value in card_rows(card):
        table.add_row(name, escape(value))
    out.print(table)
    if (promise := promise_text(card)) is not None:
        say(f"the bands' promise: {escape(promise)}")
    for line in evaluation_lines(store, model_id):
        say(escape(line))
    for warning in card["warnings"]:
        note(warning)
    say(f"champion     {'yes' if is_champion else 'no: another was promoted meanwhile'}")


def models(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the champion before this one.")
    ] = False,
    reason: Reason = "",
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """List the promoted models and how each became champion."""
    from thyro_core.registry import champion as champions
    from thyro_core.validation.listing import evaluation_lines

    opened_store = open_store_at(store)
    if reason and not rollback:
        msg = "models: expected a reason with --rollback only; add --rollback, or leave it out"
        raise InputError(msg)
    if rollback:
        champions.rollback(opened_store, reason or "rolled back")
        _note_weakness(opened_store)
    rows, champion = champions.list_models(opened_store), champions.read_champion(opened_store)
    history = champion.history if champion else ()
    if as_json:
        print_json(
            {
                "champion": champion.model_id if champion else None,
                "models": [
                    _row_json(row) | {"evaluations": evaluation_lines(opened_store, row.model_id)}
                    for row in rows
                ],
                "history": [_change_json(change) for change in history],
                "store": opened_store.url,
                "notice": NOTICE,
            }
        )
        return
    _show_models(rows, list(history))
    for row in rows:
        for line in evaluation_lines(opened_store, row.model_id):
            say(f"{row.model_id}  {escape(line)}")


def _show_models(rows: list["ModelRow"], history: list["Change"]) -> None:
    if not rows:
        say("no model was promoted yet; `thyro promote STUDY_ID` makes one of a finished study")
        return
    from thyro_core.evaluation.threshold import threshold_text

    headers = ("model", "architecture", "study", "AUC", "threshold")
    table = result_table(*headers, title="Models, promoted or bundled to be evaluated")
    for row in rows:
        name = f"[bold]{row.model_id}[/]\n(champion)" if row.is_champion else row.model_id
        auc = "undefined" if row.auc is None else f"{row.auc:.3f}"
        facts = (row.architecture, row.study_id, auc, threshold_text(row.threshold))
        table.add_row(name, *(("damaged", "", "", "") if row.fault else facts))
    out.print(table)
    for fault in filter(None, (row.fault for row in rows)):
        say(f"[red]damaged[/] {escape(fault)}")
    for row in rows:
        if row.note:
            note(f"{row.model_id}: {row.note}")
    for change in history:
        came = f"{change.model_id} from {change.before or 'none'}"
        when = change.when.strftime("%Y-%m-%d %H:%M:%S UTC")
        say(f"{when}  {change.how:<9} {came}: {escape(change.why)}; {escape(change.gate)}")


def _row_json(row: "ModelRow") -> dict[str, object]:
    return {
        "model_id": row.model_id,
        "architecture": row.architecture,
        "study_id": row.study_id,
        "manifest_id": row.manifest_id,
        "auc": row.auc,
        "threshold": None if row.fault else row.threshold,
        "champion": row.is_champion,
        "note": row.note,
        "fault": row.fault,
    }


def _change_json(change: "Change") -> dict[str, object]:
    return change.model_dump(mode="json", by_alias=True)
