"""Drift of a batch from the training set: figures, declared bounds, and breaches in words.

A breach needs size and certainty: a figure past its bound, and not by chance. Large batches make
any difference certain, small ones make chance look large. Drift of scores may be drift of the
patients (more malignant nodules, say) and not of the model; the figures cannot tell the two.

Chance is reckoned for values that are independent. The frames of a clip are not, nor the stills of
a patient: each file counts once, by one frame that the hash of its id draws, each patient with a
pseudonym by one file drawn so, and on the side of the training set each group of images that belong
together. A patient's mean would not do: means spread less than the single images they are
compared with. Nor are files not scored independent, such as one examination exported in a wrong
form: of each patient one file is drawn, scored or not, and the test is of these. A file of an
unknown patient (one that cannot be read has none) counts itself, so that an examination of such
files still is many. The bounds on P are such that of 30 nights in which nothing has changed at most
a tenth have a false alarm in any of the eight tested figures: 30 x 8 x 0.0004.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy import stats

from thyro_core import NOTICE
from thyro_core.errors import amount
from thyro_core.registry.distance import embedding_matrix
from thyro_core.screening.drift_statistics import KsTest, MmdTest, ks, mmd, psi, psi_chance
from thyro_core.types import FloatArray

FIGURES: tuple[str, ...] = (
    "psi_score",
    "ks_score",
    "ks_score_p",
    "psi_mean",
    "psi_sharpness",
    "ks_mean",
    "ks_sharpness",
    "mmd",
    "mmd_p",
    "share_rejected",
)
"""The figures of a batch, by their names in the table `screening_batches`."""

_SCALARS = {"score": "prob_malignant", "mean": "mean", "sharpness": "sharpness"}
_Proportion = Annotated[float, Field(ge=0.0, le=1.0)]


class DriftThresholds(BaseModel):
    """From when on a difference from the training set is called drift."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    minimum: Annotated[int, Field(ge=2, le=100_000)] = Field(
        50,
        description="Fewest scored files, one a patient, to judge a batch by; of fewer it is said.",
    )
    psi: Annotated[float, Field(ge=0.0)] = Field(
        0.25, description="Population stability index from which a figure has drifted."
    )
    ks: _Proportion = Field(
        0.2, description="Kolmogorov-Smirnov distance from which a figure has drifted."
    )
    mmd: Annotated[float, Field(ge=0.0)] = Field(
        0.01,
        description="Squared discrepancy of embeddings from which they have drifted: about a fifth "
        "of a standard deviation in every dimension.",
    )
    p: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.0004, description="P above which a difference counts as chance, however large."
    )
    share_rejected: _Proportion = Field(
        0.2, description="Share of files without a scored image from which the source has changed."
    )
    mmd_size: Annotated[int, Field(ge=10, le=2000)] = Field(
        500, description="Most embeddings of a side that are compared, drawn by the seed."
    )
    permutations: Annotated[int, Field(ge=99, le=100_000)] = Field(
        2999, description="Relabellings of the embeddings' test."
    )
    seed: Annotated[int, Field(ge=0, lt=2**31)] = Field(
        0, description="Seed of the draws and the relabellings."
    )

    @model_validator(mode="after")
    def _certainty_can_be_reached(self) -> Self:
        if self.p * (self.permutations + 1) <= 1:
            msg = f"permutations must be above 1 / p = {1 / self.p:.0f}, or no P is ever below p"
            raise ValueError(msg)
        return self


@dataclass(frozen=True)
class Breach:
    """A figure past its bound."""

    statistic: str
    value: float
    bound: float

    @property
    def text(self) -> str:
        """For people: `psi_score 0.412 (bound 0.250)`."""
        return f"{self.statistic} {self.value:.3f} (bound {self.bound:.3f})"


@dataclass(frozen=True)
class DriftReport:
    """A batch against the training set."""

    n_received: int
    """Files."""
    n_scored: int
    """Files with a scored image."""
    values: dict[str, float]
    """Each of `FIGURES`; NaN: not computed."""
    breaches: tuple[Breach, ...]
    too_few: str | None
    """Why the batch is not judged; None: it is."""
    pooled_batches: int = 1
    """Of how many batches the figures are, but for `share_rejected`: with less than `minimum`
    files those before it count too."""

    def pooled_with(self, pool: "DriftReport", batches: int) -> "DriftReport":
        """This batch's report with the figures of a pool that it is part of.

        Args:
            pool: the pool against the training set.
            batches: how many batches are in it, this one among them.
        """
        share = "share_rejected"
        return replace(
            self,
            values=pool.values | {share: self.values[share]},
            breaches=(
                *(breach for breach in pool.breaches if breach.statistic != share),
                *(breach for breach in self.breaches if breach.statistic == share),
            ),
            too_few=pool.too_few,
            pooled_batches=batches,
        )

    def figures(self) -> dict[str, object]:
        """Columns of `screening_batches`: the figures (null: not computed), and `breaches`."""
        numbers: dict[str, object] = {
            name: None if math.isnan(value) else value for name, value in self.values.items()
        }
        return numbers | {
            "breaches": ",".join(breach.statistic for breach in self.breaches),
            "pooled_batches": self.pooled_batches,
        }

    @property
    def text(self) -> str:
        """The verdict in a sentence or two."""
        parts = [f"{self.too_few.capitalize()}."] if self.too_few else []
        if self.pooled_batches > 1:
            before = amount(self.pooled_batches - 1, "batch", "batches")
            parts.append(f"Judged together with the {before} before it.")
        if self.breaches:
            parts.append(f"Drift: {'; '.join(breach.text for breach in self.breaches)}.")
        return " ".join(parts) or "No figure is past its bound."


def breaches_of(row: Mapping[str, Any]) -> list[str]:
    """Names of a batch's figures past their bound.

    Args:
        row: of `screening_batches`.
    """
    return [name for name in (row["breaches"] or "").split(",") if name]


def compare_with_training(
    reference: pa.Table,
    batch: pa.Table,
    thresholds: DriftThresholds,
    embeddings: npt.ArrayLike | None = None,
) -> DriftReport:
    """Compare a batch with the training set as the model saw it.

    Scores, mean grey level and sharpness are compared by PSI and Kolmogorov-Smirnov; embeddings
    by MMD, on the reference's side with those of `held_out` images only, as training draws the
    others together. A PSI breaches its bound only if chance does not explain it; KS and MMD only
    if their P says so too, and the share of files not scored if the binomial test of a share at
    the bound does, one file a patient. The share itself is a figure of the whole batch's files.

    Args:
        reference: a bundle's reference set; of each group one image counts.
        batch: one row a file received: `status` (scored, rejected or failed),
            `prob_malignant`, `mean`, `sharpness`; null where there is none. With `embeddings`
            None also `embedding`, if there are any. With a column `counts` only rows where it is
            true are compared, one a patient; with `is_drawn` only rows where that is true are
            tested for being scored.
        thresholds: the bounds.
        embeddings: (n, k), one of each file with a scored image, or of a random sample of them.

    Returns:
        The figures and what they breach. Of a batch with fewer than `minimum` scored files that
        count only the share of the files not scored is a figure, and nothing is a breach, unless
        it received that many, one a patient.
    """
    reference, all_images = _one_a_group(reference), reference
    scored_files = batch.filter(pc.equal(batch["status"], "scored"))
    n_received, n = batch.num_rows, scored_files.num_rows
    values = dict.fromkeys(FIGURES, math.nan)
    share = 1 - n / n_received if n_received else math.nan
    values["share_rejected"] = share
    breaches: list[Breach] = []
    counted_files = scored_files
    if "counts" in scored_files.column_names:
        counted_files = scored_files.filter(scored_files["counts"])
    if counted_files.num_rows >= thresholds.minimum:
        for name in _SCALARS:
            breaches += _scalar_breaches(reference, counted_files, name, values, thresholds)
        breaches += _embedding_breaches(all_images, counted_files, embeddings, values, thresholds)
    files = batch.filter(batch["is_drawn"]) if "is_drawn" in batch.column_names else batch
    if share > thresholds.share_rejected and _is_rejection_certain(files, thresholds):
        breaches.append(Breach("share_rejected", share, thresholds.share_rejected))
    too_few = _too_few(counted_files.num_rows, n, thresholds.minimum)
    return DriftReport(n_received, n, values, tuple(breaches), too_few)


def _is_rejection_certain(files: pa.Table, thresholds: DriftThresholds) -> bool:
    """Whether chance does not explain how many independent files are not scored."""
    n = files.num_rows
    n_scored = files.filter(pc.equal(files["status"], "scored")).num_rows
    p = float(stats.binom.sf(n - n_scored - 1, n, thresholds.share_rejected))
    return n >= thresholds.minimum and p < thresholds.p


def _too_few(n: int, files: int, minimum: int) -> str | None:
    if n >= minimum:
        return None
    what = "files" if n == files else f"patients, or files of unknown ones ({files} files),"
    return f"too few to judge: {n} {what} with a scored image, at least {minimum} are needed"


def _one_a_group(reference: pa.Table) -> pa.Table:
    """One image of each group: the first by its id, a hash, which is as good as a random one."""
    in_order = reference.sort_by("image_id")
    groups = in_order["group_id"].to_pylist()
    first: dict[object, int] = {}
    for place, group in enumerate(groups):
        first.setdefault(("image", place) if group is None else group, place)
    return in_order.take(pa.array(sorted(first.values()), pa.int64()))


def _scalar_breaches(
    reference: pa.Table, batch: pa.Table, name: str, values: dict[str, float],
    thresholds: DriftThresholds,
) -> list[Breach]:  # fmt: skip
    """Figures of one column, put into `values`, and what they breach."""
    x, y = (_finite_values(table[_SCALARS[name]]) for table in (reference, batch))
    if not x.size or not y.size:
        return []
    index, test = psi(x, y), ks(x, y)
    values[f"psi_{name}"], values[f"ks_{name}"] = index, test.distance
    if name == "score":
        values["ks_score_p"] = test.p
    return _psi_breach(name, index, x.size, y.size, thresholds) + _ks_breach(name, test, thresholds)


def _psi_breach(
    name: str, index: float, m: int, n: int, thresholds: DriftThresholds
) -> list[Breach]:
    bound = max(thresholds.psi, psi_chance(m, n, 1 - thresholds.p))
    return [Breach(f"psi_{name}", index, bound)] if index > bound else []


def _ks_breach(name: str, test: KsTest, thresholds: DriftThresholds) -> list[Breach]:
    has_drifted = test.distance > thresholds.ks and test.p < thresholds.p
    return [Breach(f"ks_{name}", test.distance, thresholds.ks)] if has_drifted else []


def _embedding_breaches(
    reference: pa.Table, batch: pa.Table, embeddings: npt.ArrayLike | None,
    values: dict[str, float], thresholds: DriftThresholds,
) -> list[Breach]:  # fmt: skip
    y = _embeddings(batch, embeddings)
    out_of_training = reference.filter(reference["held_out"])
    images = out_of_training if out_of_training.num_rows > 1 else reference
    x = embedding_matrix(_one_a_group(images))
    if len(y) < thresholds.minimum or len(x) < 2:
        return []
    test: MmdTest = mmd(x, y, thresholds.mmd_size, thresholds.permutations, thresholds.seed)
    values["mmd"], values["mmd_p"] = test
    has_drifted = test.value > thresholds.mmd and test.p < thresholds.p
    return [Breach("mmd", test.value, thresholds.mmd)] if has_drifted else []


def _embeddings(batch: pa.Table, sample: npt.ArrayLike | None) -> FloatArray:
    if sample is not None:
        return np.asarray(sample, dtype=np.float64)
    if "embedding" not in batch.column_names:
        return np.empty((0, 0))
    return embedding_matrix(batch.filter(batch["embedding"].is_valid()))


def _finite_values(column: pa.ChunkedArray) -> FloatArray:
    values = np.asarray(column.drop_null().to_numpy(), dtype=np.float64)
    return values[np.isfinite(values)]


def drift_markdown(report: DriftReport, batch: str, model_id: str) -> str:
    """A batch's drift as a Markdown page.

    Args:
        report: the result of `compare_with_training`.
        batch: what the batch is called; nothing that names a person.
        model_id: the model that scored it.
    """
    lines = [
        f"# Drift of {batch} against the training set of {model_id}",
        "",
        f"**{NOTICE}**",
        "",
        f"{report.n_scored} of {report.n_received} files have a scored image. {report.text}",
        "",
        "| figure | value |",
        "|---|---|",
        *(
            f"| {name} | {'not computed' if math.isnan(value) else f'{value:.4f}'} |"
            for name, value in report.values.items()
        ),
    ]
    return "\n".join(lines) + "\n"
