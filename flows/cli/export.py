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
    mlflow: Annotated[
        str,
        typer.Option("--mlflow", help="Of a study: address of an MLflow server to write it to."),
    ] = "",
    formats: Annotated[
        str, typer.Option("--formats", help="Of a model: which kinds of files, with commas.")
    ] = "onnx,torch,plain",
    store: StoreUrl = None,
) -> None:
    """Write a study's figures, tables and methods for a paper, or a model for other programs.

    Of a model: ONNX, torch's exported programs, a plain PyTorch folder that runs without Thyro, and
    its card.
    """
    from flows.cli.options import open_store_at

    opened_store = open_store_at(store)
    is_model = what == _CHAMPION or what.startswith("b")
    if mlflow and (is_model or to is not None):
        msg = "--mlflow: expected a study and no --to, found another; give one of the two"
        raise InputError(msg)
    if mlflow:
        _track_study(opened_store, what, mlflow)
    elif is_model:
        _export_model(opened_store, what, to, formats)
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


def _track_study(store: "Store", name: str, address: str) -> None:
    from thyro_core import NOTICE
    from thyro_core.host import scratch_folder
    from thyro_core.settings import Settings
    from thyro_core.study.plan import find_study
    from thyro_core.validation.config import ModelChoice
    from thyro_core.validation.model import find_model

    try:
        from thyro_core.reporting.tracking.server import TrackingServer
        from thyro_core.reporting.tracking.study_runs import track_study
    except ModuleNotFoundError as error:
        raise _missing(error, "that draw figures and reach a server", "mlflow") from error
    study_id, scratch = find_study(store, name), scratch_folder(Settings())
    scratch.mkdir(parents=True, exist_ok=True)
    server = TrackingServer(address)
    try:
        with err.status("bundling the model") as status:
            bundle = find_model(store, ModelChoice(model=study_id), scratch)
            result = track_study(
                store,
                bundle,
                server,
                scratch=scratch,
                progress=lambda n_done, total: status.update(f"written: {n_done} of {total} runs"),
            )
    finally:
        server.close()
    already = f"; {result.old_runs} were there already" if result.old_runs else ""
    say(f"{amount(result.new_runs, 'run')} written to {escape(result.address)}{already}")
    say(NOTICE)


def _export_model(store: "Store", name: str, to: Path | None, formats: str) -> None:
    from thyro_core import NOTICE
    from thyro_core.host import scratch_folder
    from thyro_core.registry.bundle import load_bundle
    from thyro_core.registry.export.export import FORMATS, export_model
    from thyro_core.registry.export.networks import load_onnx_packages
    from thyro_core.settings import Settings

    names = {each.strip() for each in formats.split(",")} - {""}
    if not names or names - set(FORMATS):
        msg = f"--formats: expected some of {','.join(FORMATS)}, found {formats or 'nothing'}"
        raise InputError(msg)
    if "onnx" in names:
        try:
            load_onnx_packages()
        except ModuleNotFoundError as error:
            what = "that write and check ONNX (or leave it out: --formats torch,plain)"
            raise _missing(error, what, "export") from error
    bundle = load_bundle(store, _promoted_id(store, name))
    folder = to or Path(f"export-{bundle.model_id}")
    with err.status("writing and checking the networks") as status:
        result = export_model(
            store,
            bundle,
            folder,
            [each for each in FORMATS if each in names],
            scratch=scratch_folder(Settings()),
            progress=lambda n_done, total: status.update(f"written: {n_done} of {total}"),
        )
    kinds = {"onnx": "ONNX", "torch": "torch.export", "plain": "plain PyTorch"}
    text = f"{amount(result.members, 'member')} as {' and '.join(kinds[k] for k in result.formats)}"
    if result.gap is not None:
        text += f"; onnxruntime agrees with torch to {result.gap:.2g} on {result.checked_on}"
    say(text)
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
