"""`thyro promote` and `thyro models`: which model is in use, and how it came to be."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from thyro_core import NOTICE
from thyro_core.errors import InputError

if TYPE_CHECKING:
    from thyro_core.registry.champion import Change, ModelRow
    from thyro_core.registry.promote import PromotionConfig
    from thyro_core.store.store import Store as OpenStore

Store = Annotated[
    str | None, typer.Option(help="fsspec URL for everything that is kept [THYRO_STORE].")
]
_out = Console()


@dataclass(frozen=True)
class Promote:
    """Bundle a study's models and make them the champion, unless they are worse."""

    study_id: Annotated[str, typer.Argument(help="The finished study.")]
    architecture: Annotated[
        str, typer.Option(help="Which of its networks; first: the study's first one.")
    ] = "first"
    sensitivity: Annotated[
        float, typer.Option(help="Share of malignant images the threshold aims to find.")
    ] = 0.95
    force: Annotated[
        bool, typer.Option("--force", help="Even if the champion is better; give a reason.")
    ] = False
    reason: Annotated[str, typer.Option(help="Why, one line; kept for ever: name nobody.")] = ""
    store: Store = None
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object last.")] = False

    def __post_init__(self) -> None:
        from thyro_core.settings import Settings
        from thyro_core.store.store import open_store

        config = _config(
            study_id=self.study_id,
            architecture=self.architecture,
            sensitivity=self.sensitivity,
            force=self.force,
            reason=self.reason,
        )
        opened = open_store(self.store or Settings().store)
        from flows.promote import promote
        from flows.serving.server import server_needed

        with server_needed():
            model_id = promote(config, opened.url)
        _show_model(opened, model_id, as_json=self.as_json)


def _config(**values: object) -> "PromotionConfig":
    from pydantic import ValidationError

    from thyro_core.registry.promote import PromotionConfig

    try:
        return PromotionConfig.model_validate(values)
    except ValidationError as error:
        facts = []
        for problem in error.errors():
            said = problem["msg"].removeprefix("Value error, ")
            name = ".".join(map(str, problem["loc"]))
            facts.append(f"{name}: {said}, found {problem['input']!r}" if name else said)
        msg = f"promote: {'; '.join(facts)}"
        raise InputError(msg) from error


def _show_model(store: "OpenStore", model_id: str, *, as_json: bool) -> None:
    from thyro_core.registry.bundle import load_bundle
    from thyro_core.registry.card_text import card_rows
    from thyro_core.registry.champion import read_champion

    card, champion = load_bundle(store, model_id).card, read_champion(store)
    is_champion = champion is not None and champion.model_id == model_id
    if as_json:
        last = champion.history[-1] if champion else None
        _print_json(
            {
                "model_id": model_id,
                "champion": is_champion,
                "change": _change_json(last) if last else None,
                "card": dict(card),
                "store": store.url,
                "notice": NOTICE,
            }
        )
        return
    table = Table(
        "", "95 % interval in brackets", title=f"Model {model_id}", caption=NOTICE,
        box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for name, value in card_rows(card):
        table.add_row(name, escape(value))
    _out.print(table)
    for warning in card["warnings"]:
        _say(f"[yellow]Note:[/] {escape(warning)}")
    _say(f"champion     {'yes' if is_champion else 'no: another was promoted meanwhile'}")


def models(
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Go back to the champion before this one.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why, one line; kept for ever: name nobody.")] = "",
    store: Store = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """List the promoted models and how each became champion."""
    from thyro_core.registry import champion as champions
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    opened = open_store(store or Settings().store)
    if reason and not rollback:
        msg = "models: expected a reason with --rollback only; add --rollback, or leave it out"
        raise InputError(msg)
    if rollback:
        champions.rollback(opened, reason or "rolled back")
    rows, current = champions.models(opened), champions.read_champion(opened)
    history = current.history if current else ()
    if as_json:
        _print_json(
            {
                "champion": current.model_id if current else None,
                "models": [_row_json(row) for row in rows],
                "history": [_change_json(change) for change in history],
                "store": opened.url,
                "notice": NOTICE,
            }
        )
        return
    _show_models(rows, list(history))


def _show_models(rows: list["ModelRow"], history: list["Change"]) -> None:
    if not rows:
        _say("no model was promoted yet; `thyro promote STUDY_ID` makes one of a finished study")
        return
    table = Table(
        "model", "architecture", "study", "AUC", "threshold", title="Promoted models",
        caption=NOTICE, box=SIMPLE_HEAD, pad_edge=False,
    )  # fmt: skip
    for row in rows:
        name = f"[bold]{row.model_id}[/] (champion)" if row.is_champion else row.model_id
        auc = "undefined" if row.auc is None else f"{row.auc:.3f}"
        facts = (row.architecture, row.study_id, auc, f"{row.threshold:.6g}")
        table.add_row(name, *(("damaged", "", "", "") if row.fault else facts))
    _out.print(table)
    for fault in filter(None, (row.fault for row in rows)):
        _say(f"[red]damaged[/] {escape(fault)}")
    for change in history:
        came = f"{change.model_id} from {change.before or 'none'}"
        when = change.when.strftime("%Y-%m-%d %H:%M:%S UTC")
        _say(f"{when}  {change.how:<9} {came}: {escape(change.why)}; {escape(change.gate)}")


def _row_json(row: "ModelRow") -> dict[str, object]:
    return {
        "model_id": row.model_id,
        "architecture": row.architecture,
        "study_id": row.study_id,
        "manifest_id": row.manifest_id,
        "auc": row.auc,
        "threshold": None if row.fault else row.threshold,
        "champion": row.is_champion,
        "fault": row.fault,
    }


def _change_json(change: "Change") -> dict[str, object]:
    return change.model_dump(mode="json", by_alias=True)


def _print_json(value: dict[str, object]) -> None:
    typer.echo(json.dumps(value, allow_nan=False))


def _say(line: str) -> None:
    """One line of rich markup, never broken by the width of a terminal."""
    _out.print(line, highlight=False, soft_wrap=True)
