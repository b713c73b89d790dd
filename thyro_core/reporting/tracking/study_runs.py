"""A finished study written into a tracking server: runs, metrics, figures and the model.

Nothing of an image, a patient or this machine goes along: no picture, no path, no name of a column
or of a host.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from thyro_core import NOTICE, __version__
from thyro_core.registry.bundle import Bundle
from thyro_core.registry.card_pages import card_markdown
from thyro_core.registry.export.export import export_model
from thyro_core.reporting.manuscript.figure_files import standalone_svg
from thyro_core.reporting.manuscript.page import read_page
from thyro_core.reporting.report import render_report
from thyro_core.reporting.tracking.server import Measurement, TrackedRun, TrackingServer
from thyro_core.store.store import Store
from thyro_core.study.plan import StudyPlan, load_current_plan
from thyro_core.tables.io import read_table

EXPERIMENT = "thyro"
"""The experiment that all studies of a server share."""

PRIVATE_KEYS = frozenset(
    {
        "weights", "weights_prefix", "image_column", "label_column", "patient_column", "label_map",
        "centre_column", "date_column", "subgroups", "readers",
    }
)  # fmt: skip
"""Keys of a config that name a place, or words of somebody's table."""

_STUDY_TAG, _PART_TAG = "thyro.study_id", "thyro.part"
_WIDTH = 174.0
_CARD_STANDING = "Written into a tracking server; its standing is the registry's that it came from."
_OF_STUDY = "study"


@dataclass(frozen=True)
class TrackedStudy:
    """What was written, and what was there already."""

    new_runs: int
    """Runs that were written."""
    old_runs: int
    """Runs that an earlier command finished."""
    address: str


@dataclass(frozen=True)
class _StudyRuns:
    """The runs of a study on a server."""

    server: TrackingServer
    experiment: str
    study_id: str
    has_some: bool
    """Whether an earlier command wrote any."""

    def begin(self, part: str, parent: TrackedRun | None = None) -> tuple[TrackedRun, bool]:
        """The run of a part of the study, and whether it is to be written.

        Args:
            part: of the study.
            parent: the study's own run; None: this is it.
        """
        name = f"{self.study_id} {part}"
        own = self.server.find_runs(self.experiment, _PART_TAG, name) if self.has_some else []
        whole = [run for run in own if run.status == "FINISHED"]
        if whole:
            return whole[0], False
        if parent is None and own:
            # Its parts are its children: they stay, and it is gone on with.
            return own[0], True
        for run in own:
            self.server.delete(run)
        tags = {_STUDY_TAG: self.study_id, _PART_TAG: name, "thyro.notice": NOTICE}
        if parent is not None:
            tags["mlflow.parentRunId"] = parent.run_id
        return self.server.create_run(self.experiment, name, tags), True


def track_study(
    store: Store,
    bundle: Bundle,
    server: TrackingServer,
    *,
    scratch: Path,
    progress: Callable[[int, int], None] = lambda _n_done, _total: None,
) -> TrackedStudy:
    """Write the runs of a model's study; what an earlier command finished stays as it is.

    Args:
        store: holds the study.
        bundle: the model made of the study.
        server: where it goes.
        scratch: node-local folder.
        progress: called with the number of runs done and of all.

    Raises:
        InputError: there is no such study, or the server refuses.
        IncompleteStudyError: the study is not finished.
        StoreError: the server does not answer.
    """
    plan = load_current_plan(store, bundle.card["study_id"])
    report, _ = render_report(store, plan.study_id, scratch)
    experiment = server.experiment(EXPERIMENT)
    earlier_runs = server.find_runs(experiment, _STUDY_TAG, plan.study_id)
    runs = _StudyRuns(server, experiment, plan.study_id, bool(earlier_runs))
    parent, is_new = runs.begin(_OF_STUDY)
    tables = {
        name: read_table(store, name, study_id=plan.study_id).to_pylist()
        for name in ("metrics", "epochs", "runs")
    }
    total, n_new = len(tables["runs"]) + 1, int(is_new)
    for n_done, run in enumerate(tables["runs"]):
        child, is_child_new = runs.begin(f"split {run['split']} {run['architecture']}", parent)
        n_new += is_child_new
        if is_child_new:
            metrics, epochs = (_rows_of(tables[name], run) for name in ("metrics", "epochs"))
            server.log(child, _run_params(run), list(_run_metrics(metrics, epochs)))
            server.finish(child)
        progress(n_done + 1, total)
    if is_new:
        server.log(parent, public_params(plan), list(_study_metrics(tables["metrics"])))
        for path, data in _files(store, plan, bundle, report, scratch=scratch):
            server.upload(parent, path, data)
        server.finish(parent)
    progress(total, total)
    return TrackedStudy(n_new, total - n_new, server.address)


def _rows_of(rows: list[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    keys = run["split"], run["architecture"]
    return [row for row in rows if (row["split"], row["architecture"]) == keys]


def public_params(plan: StudyPlan) -> dict[str, str]:
    """What of a study a stranger may read: its config without places and words of tables."""
    config = plan.config.model_dump(mode="json")
    starts = {
        f"weights_sha256_{name}": start.sha256 or "none: random"
        for name, start in plan.weights.items()
    }
    return {
        "manifest_id": plan.manifest_id,
        "precision": plan.precision,
        "thyro": __version__,
        **{key: str(value) for key, value in config.items() if key not in PRIVATE_KEYS},
        **starts,
    }


def _run_params(run: dict[str, Any]) -> dict[str, str]:
    names = (
        "split", "architecture", "seed", "precision", "threads", "side", "focal_alpha", "n_train",
        "n_test", "weights_sha256", "model_sha256", "git_commit",
    )  # fmt: skip
    return {name: str(run[name]) for name in names if run[name] is not None}


def _run_metrics(
    metrics: list[dict[str, Any]], epochs: list[dict[str, Any]]
) -> Iterator[Measurement]:
    for row in metrics:
        prefix = "" if row["level"] == "image" else f"{row['level']}/"
        yield from _finite(f"{prefix}{row['metric']}", row["value"])
    for row in sorted(epochs, key=lambda row: row["epoch"]):
        for name in ("loss", "val_loss", "learning_rate"):
            yield from _finite(name, row[name], row["epoch"])


def _study_metrics(metrics: list[dict[str, Any]]) -> Iterator[Measurement]:
    for row in metrics:
        if row["split"] is None:
            name = f"{row['architecture']}/{row['level']}/{row['metric']}"
            for suffix, column in (("", "value"), ("_ci_low", "ci_low"), ("_ci_high", "ci_high")):
                yield from _finite(name + suffix, row[column])


def _finite(key: str, value: float | None, step: int = 0) -> Iterator[Measurement]:
    """None of what is undefined: the server knows no NaN."""
    if value is not None and math.isfinite(value):
        yield Measurement(key, float(value), step)


def _files(
    store: Store, plan: StudyPlan, bundle: Bundle, report: str, *, scratch: Path
) -> Iterator[tuple[str, bytes]]:
    """Figures and model; the gallery, which shows images, stays here."""
    for figure in read_page(report).figures:
        yield f"figures/{figure.name}.svg", standalone_svg(figure.svg, _WIDTH).encode()
    with TemporaryDirectory(prefix="thyro-") as folder:
        export = export_model(store, bundle, Path(folder) / "model", ["plain"], scratch=scratch)
        for file in sorted((export.folder / "plain").iterdir()):
            data = file.read_bytes()
            is_text = file.suffix in {".json", ".py"}
            yield f"model/{file.name}", _without_places(data, plan) if is_text else data
    card = card_markdown(bundle.card, _CARD_STANDING)
    yield "model/card.md", _without_places(card.encode(), plan)


def _without_places(data: bytes, plan: StudyPlan) -> bytes:
    """A text without the folders that older cards name."""
    for start in plan.weights.values():
        data = data.replace(start.origin.encode(), start.display_origin.encode())
    return data
