"""A model evaluated on external images, as a Prefect flow."""

from functools import partial
from typing import Annotated

from prefect import flow, get_run_logger
from prefect.artifacts import create_link_artifact

from flows.artifacts import (
    ProgressBar,
    best_effort,
    completed_state,
    name_run,
    run_of,
    show_page,
    show_table,
)
from flows.forms import Address, ModelForm, RulesForm, Source
from flows.ingest import read_and_show
from flows.observer import current_observer
from flows.retries import step
from thyro_core import NOTICE
from thyro_core.config import IngestConfig
from thyro_core.datasets.manifest import Manifest, ingest
from thyro_core.host import scratch_folder
from thyro_core.registry.bundle import Bundle
from thyro_core.settings import Settings
from thyro_core.store.store import open_store
from thyro_core.urls import redact
from thyro_core.validation.config import EvaluationConfig, EvaluationRecord, ModelChoice
from thyro_core.validation.evaluate import (
    EvaluationTask,
    evaluation_figures,
    run_evaluation,
)
from thyro_core.validation.model import find_model, with_view
from thyro_core.validation.sentences import summary_sentences
from thyro_core.validation.wording import estimate


@flow(name="evaluate")
def evaluate(
    source: Source,
    model: Annotated[ModelChoice, ModelForm(("model",))] = ModelChoice(),  # noqa: B008
    rules: RulesForm = IngestConfig(),  # noqa: B008
    config: Annotated[EvaluationConfig, ModelForm(())] = EvaluationConfig(),  # noqa: B008
    *,
    store: Address = "",
) -> str:
    """Score a labelled external image set with a model; fits nothing on it. Research use only.

    Args:
        source: Where the images are: a folder that the server can read, or an address such as
            s3://bucket/folder. It holds the images and a file labels.csv (image, label,
            patient_id), or the folders benign and malignant. Never write a password or a key into
            it: everybody who can open this page can read it.
        model: Which model. The champion, unless you name another.
        rules: When an image is excluded, and how labels are read. The defaults are good.
        config: How intervals are made. The defaults are good.
        store: Where the model is kept, such as s3://bucket/thyro. Empty: the server's own store.

    Returns:
        The evaluation's id.
    """
    with run_of("evaluate"):
        address = store or Settings().store
        bundle = _find(model, address)
        manifest = _read_set(source, with_view(rules, bundle), bundle.side, address)
        kept_source = None if Settings().keep_names is False else source
        task = EvaluationTask(bundle, manifest, kept_source, config)
        name_run(f"evaluate-{task.evaluation_id}")
        record = _evaluate(task, address)
        auc = estimate(evaluation_figures(open_store(address), record.evaluation_id)["none", "auc"])
        message = f"{record.evaluation_id}: model {record.model_id}, AUC {auc}; {NOTICE}"
        return completed_state(record.evaluation_id, message)


@step("model")
def _find(choice: ModelChoice, store: str) -> Bundle:
    scratch = scratch_folder(Settings())
    scratch.mkdir(parents=True, exist_ok=True)
    return find_model(open_store(store), choice, scratch)


@step("images")
def _read_set(source: str, rules: IngestConfig, side: int, store: str) -> Manifest:
    return read_and_show(partial(ingest, source, rules, open_store(store), [side]))


@step("evaluation")
def _evaluate(task: EvaluationTask, store: str) -> EvaluationRecord:
    from thyro_core.reporting.evaluation import write_evaluation_page

    bar, observer, opened_store = (
        ProgressBar("images scored"),
        current_observer(),
        open_store(store),
    )

    def progress(n_done: int, total: int) -> None:
        observer.on_scored(n_done, total)
        bar.count(n_done, total)

    record = run_evaluation(opened_store, task, scratch_folder(Settings()), progress)
    url = write_evaluation_page(opened_store, record.evaluation_id)
    figures = evaluation_figures(opened_store, record.evaluation_id)
    sentences = summary_sentences(record, figures)
    for sentence in sentences:
        get_run_logger().info(sentence)
    key = f"evaluation-{record.evaluation_id}"
    lines = [f"# Evaluation {record.evaluation_id}", *sentences, f"*{NOTICE}*"]
    show_page(key, "\n\n".join(lines), "What the model does on these images")
    rows = [["figure", "here", "on its own images"]]
    rows += [
        [metric, estimate(row), "" if row["internal"] is None else f"{row['internal']:.3f}"]
        for (adaptation, metric), row in figures.items()
        if adaptation == "none"
    ]
    show_table(f"{key}-figures", rows, "By image (95 % interval)")
    best_effort(
        create_link_artifact,
        redact(url),
        link_text="the report",
        key=f"{key}-report",
        description="Research use only. The evaluation's report, one HTML file for a browser.",
    )
    return record
