"""`thyro predict`: single files judged by a promoted model, in the terminal."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, print_json, say
from flows.cli.options import Json, StoreUrl
from thyro_core import NOTICE
from thyro_core.errors import InputError, amount

if TYPE_CHECKING:
    from thyro_core.screening.single_files import FileVerdict


def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures or DICOM files.")],
    model: Annotated[
        str | None, typer.Option(help="A promoted model; default: the champion.")
    ] = None,
    overlays: Annotated[
        Path | None,
        typer.Option(help="Folder for a JPEG of each scored image beside its map."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="A rule key=value.")] = None,
    store: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Say what a promoted model makes of single files; nothing of it is kept in the store.

    By the rules of a screening: what is no ultrasound, or unlike the training images, has no score.
    """
    from flows.cli.screen import read_rules
    from thyro_core.host import cores, scratch_folder
    from thyro_core.registry.champion import champion
    from thyro_core.screening.model import ScreeningModel
    from thyro_core.screening.single_files import judge_files
    from thyro_core.settings import Settings
    from thyro_core.store.store import open_store

    folders = [str(path) for path in images if path.is_dir()]
    if folders:
        msg = f"{', '.join(folders)}: expected files, found a folder; thyro screen takes folders"
        raise InputError(msg)
    settings, rules = Settings(), read_rules(set_ or [])
    opened_store = open_store(store or settings.store)
    model_id = model or champion(opened_store)
    with err.status("reading"):
        scoring_model = ScreeningModel(
            opened_store, model_id, scratch_folder(settings), threads=cores()
        )
        verdicts = list(judge_files(scoring_model, images, rules))
    overlay_paths = _write_overlays(verdicts, overlays) if overlays else {}
    if as_json:
        rows = [
            {name: value for name, value in asdict(each).items() if name != "overlay"}
            | {"file": str(each.file), "overlay": overlay_paths.get(place)}
            for place, each in enumerate(verdicts)
        ]
        print_json({"model_id": model_id, "images": rows, "notice": NOTICE})
    else:
        _show(verdicts, model_id, overlay_paths, scoring_model.promise)
    if not any(each.status == "scored" for each in verdicts):
        raise typer.Exit(2)


def _write_overlays(verdicts: list["FileVerdict"], folder: Path) -> dict[int, str]:
    """Paths by the verdict's place; files of one name get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: dict[int, str] = {}
    for place, each in enumerate(verdicts):
        if each.overlay is not None:
            path = folder / f"{place + 1:03d}-{each.file.stem}.jpg"
            path.write_bytes(each.overlay)
            paths[place] = str(path)
    return paths


def _show(
    verdicts: list["FileVerdict"],
    model_id: str,
    overlay_paths: dict[int, str],
    promise: str | None,
) -> None:
    say(f"Model {model_id}: calibrated probability of malignant, and where it would be listed")
    for each in verdicts:
        number = "    -" if each.prob_malignant is None else f"{each.prob_malignant:.3f}"
        file_name = each.file.name.replace("\n", r"\n")
        words = [each.band, (each.reason or "").replace("_", " ")]
        words += [f"frame {each.frame}" if each.frame else "", each.detail or ""]
        say(escape(f"{number}  {file_name}: {', '.join(text for text in words if text)}"))
    if promise is None:
        say("refer: from the model's threshold on; review: near it, or unlike most training images")
    else:
        say(f"bands: {escape(promise)}")
    if overlay_paths:
        folder = Path(overlay_paths[min(overlay_paths)]).parent
        say(f"{amount(len(overlay_paths), 'overlay')} in {escape(str(folder))}")
    say(NOTICE)
