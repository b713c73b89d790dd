"""`thyro evaluate`: a model on a labelled external image set."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from flows.cli.console import err, note, out, print_json, result_table, say
from flows.cli.errors import parse_values, resumable
from flows.cli.options import (
    ConfigFile,
    ConfigKeys,
    ImageColumn,
    ImageSource,
    JsonLast,
    LabelColumn,
    LabelMap,
    PatientColumn,
    StoreUrl,
    label_options,
    open_store_at,
)
from thyro_core import NOTICE

if TYPE_CHECKING:
    from thyro_core.store.store import Store
    from thyro_core.validation.config import ModelChoice


def evaluate(
    model: Annotated[
        str, typer.Argument(help="champion, a promoted model, or a study (enough of its id).")
    ],
    source: ImageSource,
    architecture: Annotated[
        str, typer.Option(help="Of a study: which of its networks; first: its first one.")
    ] = "first",
    sensitivity: Annotated[
        float, typer.Option(help="Of a study: what its threshold's sensitivity must reach.")
    ] = 0.95,
    config: ConfigFile = None,
    set_: ConfigKeys = None,
    image_column: ImageColumn = "",
    label_column: LabelColumn = "",
    patient_column: PatientColumn = "",
    label_map: LabelMap = "",
    store: StoreUrl = None,
    as_json: JsonLast = False,
) -> None:
    """Evaluate a model on external images; nothing is fitted on them but what is marked."""
    from flows.cli.config_input import read_config

    options = label_options(image_column, label_column, patient_column, label_map)
    values = read_config(config, set_ or [], options)
    choice = _choice(model, architecture, sensitivity)
    with err.status("starting"):
        from flows.evaluate import evaluate as run
        from flows.forms import without_secret
        from flows.observer import observer
        from flows.serving.command_server import prefect_server
        from thyro_core.datasets.layouts import read_image_set
        from thyro_core.validation.config import EvaluationConfig

        # Listed once here: a wrong source is reported before Prefect starts.
        read_image_set(without_secret(source), values.ingest())
        opened_store = open_store_at(store)
    with err.status("reading images") as status:
        token = observer.set(_display(status))
        how = EvaluationConfig(resamples=values.resamples, seed=values.seed)
        try:
            with resumable(), prefect_server():
                evaluation_id = run(source, choice, values.ingest(), how, store=opened_store.url)
        finally:
            observer.reset(token)
    _show_evaluation(opened_store, evaluation_id, as_json=as_json)


def _choice(model: str, architecture: str, sensitivity: float) -> "ModelChoice":
    from thyro_core.validation.config import ModelChoice

    values = {"model": model, "architecture": architecture, "sensitivity": sensitivity}
    return parse_values(ModelChoice, values, "evaluate")


def _display(status: Any) -> Any:  # noqa: ANN401
    """An observer that shows how far reading and scoring are."""
    from flows.observer import Observer

    class Display(Observer):
        def on_images(self, n_done: int, total: int) -> None:
            status.update(f"decoded {n_done} of {total} images")

        def on_scored(self, n_done: int, total: int) -> None:
            status.update(f"scored {n_done} of {total} images")

    return Display()


def _show_evaluation(store: "Store", evaluation_id: str, *, as_json: bool) -> None:
    from thyro_core.store.keys import evaluation_page_key
    from thyro_core.validation.evaluate import evaluation_figures, load_evaluation
    from thyro_core.validation.sentences import summary_sentences
    from thyro_core.validation.wording import estimate

    record = load_evaluation(store, evaluation_id)
    figures = evaluation_figures(store, evaluation_id)
    page = f"{store.url}/{evaluation_page_key(evaluation_id)}"
    sentences = summary_sentences(record, figures)
    if as_json:
        print_json(
            {
                **record.model_dump(mode="json"),
                "figures": list(figures.values()),
                "sentences": sentences,
                "report": page,
                "store": store.url,
                "notice": NOTICE,
            }
        )
        return
    title = f"Evaluation {evaluation_id} of model {record.model_id}, by image"
    table = result_table("figure", "here (95 % interval)", "on its own images", title=title)
    for (adaptation, metric), row in figures.items():
        if adaptation == "none" and row["level"] == "image":
            inside = {"value": row["internal"], "ci_low": row["internal_low"]}
            inside["ci_high"] = row["internal_high"]
            table.add_row(metric.replace("_", " "), estimate(row), estimate(inside))
    out.print(table)
    for text in sentences:
        say(escape(text))
    for text in record.notes:
        note(text)
    say(f"report   {escape(page.removeprefix('file://'))}")
