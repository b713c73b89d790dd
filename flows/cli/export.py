"""`thyro export`: a study as files for a paper, or a promoted model as files for other programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from flows.cli.console import err, say
from flows.cli.options import StoreUrl
from thyro_core.errors import InputError, amount

if TYPE_CHECKING:
    from thyro_core.store.store import Store

_CHAMPION = "champion"


def export(
    what: Annotated[
        str,
        typer.Argument(
            metavar="[STUDY|MODEL]",
            help="A study, or enough of its id (default: the store's only one); or a promoted "
            "model: champion, or enough of its id.",
        ),
    ] = "",
    to: Annotated[Path | None, typer.Option("--to", help="New folder for the files.")] = None,
    width: Annotated[
        float,
        typer.Option(
            "--width", min=30, max=400, help="Of a study: width of figures [mm]; two columns: 174."
        ),
    ] = 85.0,
    store: StoreUrl = None,
) -> None:
    """Write a study's figures, tables and methods for a paper, or a model for other programs.

    Of a model: ONNX, torch's exported programs, a plain PyTorch folder that runs without Thyro, and
    its card.
    """
    from flows.cli.options import open_store_at

    opened_store = open_store_at(store)
    if what == _CHAMPION or what.startswith("b"):
        _export_model(opened_store, what, to)
    else:
        _export_study(opened_store, what, to, width)


def _export_study(store: "Store", name: str, to: Path | None, width: float) -> None:
    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings
    from thyro_core.study.plan import find_study

    try:
        from thyro_core.reporting.manuscript.export import export_study
    except ModuleNotFoundError as error:
        raise _missing(error, "that write figures and documents", "paper") from error
    study_id = find_study(store, name)
    folder = to or Path(f"export-{study_id}")
    with err.status("writing the report, its figures and tables"):
        written_files = export_study(
            store, study_id, folder, scratch=scratch_folder(Settings()), width=width
        )
    say(
        f"{amount(written_files.figures, 'figure')} and {amount(written_files.tables, 'table')}; "
        f"what is what: {escape(str(written_files.folder / 'README.md'))}"
    )


def _export_model(store: "Store", name: str, to: Path | None) -> None:
    from thyro_core import NOTICE
    from thyro_core.host import scratch_folder
    from thyro_core.registry.bundle import load_bundle
    from thyro_core.settings import Settings

    try:
        from thyro_core.registry.export.export import export_model
    except ModuleNotFoundError as error:
        raise _missing(error, "that write and check ONNX", "export") from error
    bundle = load_bundle(store, _promoted_id(store, name))
    folder = to or Path(f"export-{bundle.model_id}")
    with err.status("writing and checking the networks") as status:
        result = export_model(
            store,
            bundle,
            folder,
            scratch=scratch_folder(Settings()),
            progress=lambda n_done, total: status.update(
                f"written and checked: {n_done} of {total}"
            ),
        )
    say(
        f"{amount(result.members, 'member')} as ONNX, torch.export and plain PyTorch; onnxruntime "
        f"agrees with torch to {result.gap:.2g} on {result.checked_on}"
    )
    say(f"what is what: {escape(str(result.folder / 'README.md'))}")
    say(NOTICE)


def _promoted_id(store: "Store", name: str) -> str:
    """The id of a promoted model that a name, or the beginning of an id, stands for."""
    from thyro_core.registry.bundle import model_ids
    from thyro_core.registry.champion import champion

    if name == _CHAMPION:
        return champion(store)
    matches = [each for each in model_ids(store) if each.startswith(name)]
    if len(matches) > 1:
        msg = (
            f"export: expected the id of one model, found {', '.join(matches)} for {name}; give "
            "more of it"
        )
        raise InputError(msg)
    # No such model: the error of loading it lists those there are.
    return matches[0] if matches else name


def _missing(error: ModuleNotFoundError, what: str, extra: str) -> InputError:
    return InputError(
        f'export: expected the packages {what}, found no {error.name}; pip install "thyro[{extra}]"'
    )
