"""What a model scores that never sees an image: one of three learners on facts of the file."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from thyro_core.config import StudyConfig, ViewConfig
from thyro_core.evaluation.ensemble import auc_estimate, paired_auc_test
from thyro_core.evaluation.evidence import CHANCE_AUC
from thyro_core.evaluation.out_of_fold import (
    Ensembles,
    OutOfFoldEnsemble,
    OutOfFoldPredictions,
    out_of_fold_ensemble,
    out_of_fold_ensembles,
)
from thyro_core.evaluation.uncertainty import holm
from thyro_core.tables.schemas import rows_to_table
from thyro_core.types import FloatArray, IntArray

SHORTCUT_FACTS: tuple[str, ...] = (
    "width", "height", "aspect", "mean", "sd", "sharpness", "overlay_share", "views",
)  # fmt: skip
"""What the learners are given: columns of `images` (views: windows in it), and width / height."""

SEEN_FACTS: tuple[str, ...] = ("mean", "sd", "sharpness", "overlay_share", "views")
"""Those that a network can see in its square picture: all but the picture's size and proportions,
which it is never given."""

SEEN_PREFIX = "seen_"
"""Of the columns of `shortcuts` that compare a network with `SEEN_FACTS` alone."""

LEARNERS: tuple[str, ...] = ("random_forest", "gradient_boosting", "logistic_regression")
"""The learners, of scikit-learn, with fixed settings: 100 trees with at least five images a leaf;
a hundred trees of depth 3 with at least five images a leaf and learning rate 0.1; and, on facts of
unit variance, a penalty of 1."""

INNER_FOLDS = 3
"""Parts of a training part on which the learner is chosen, each by models of the others."""

_Row = dict[str, Any]


@dataclass(frozen=True)
class ShortcutScores:
    """Scores of the tested images by models that see facts of the file alone."""

    learners: Mapping[str, OutOfFoldEnsemble]
    """Of each of `LEARNERS`."""
    baseline: OutOfFoldEnsemble
    """Of the learner that each split chose on its own training part."""
    choices: tuple[str, ...]
    """The learner that each split chose."""


def learner_scores(
    learner: str, features: FloatArray, label: IntArray, test: FloatArray
) -> FloatArray:
    """Probability of malignant of other images by one learner; nothing is tuned.

    Args:
        learner: of `LEARNERS`.
        features: (n, f), of the training images; NaN: unknown. What none of them has is left out.
        label: (n,), 0 or 1.
        test: (m, f).
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    is_measured = ~np.isnan(features).all(axis=0)
    if not is_measured.any():
        return np.full(len(test), label.mean())
    features, test = features[:, is_measured], test[:, is_measured]
    imputer = SimpleImputer(strategy="median")
    if learner == "gradient_boosting":
        model: Any = HistGradientBoostingClassifier(
            max_iter=100, max_depth=3, min_samples_leaf=5, early_stopping=False, random_state=0
        )
    elif learner == "random_forest":
        forest = RandomForestClassifier(100, min_samples_leaf=5, random_state=0)
        model = make_pipeline(imputer, forest)
    else:
        model = make_pipeline(imputer, StandardScaler(), LogisticRegression(C=1.0))
    # Hundreds of images are too few to share out: threads that wait for each other cost more.
    with threadpool_limits(1):
        model.fit(features, label)
        return np.asarray(model.predict_proba(test)[:, 1])


def chosen_learner(features: FloatArray, label: IntArray, group: npt.NDArray[np.generic]) -> str:
    """The learner with the largest AUC in a cross-validation by groups of these images alone.

    Chosen so, the scores of other images owe nothing to the choice, and an interval around their
    AUC needs no correction for the best of several (Varma and Simon, "Bias in error estimation when
    using cross-validation for model selection", BMC Bioinformatics 7, 2006).

    Args:
        features: (n, f), of the training images.
        label: (n,), 0 or 1.
        group: (n,), what no fold parts.

    Returns:
        Of `LEARNERS`; the first one where the images are too few for a choice.
    """
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    groups = [np.unique(group[label == value]).size for value in (0, 1)]
    if min(groups) < INNER_FOLDS:
        return LEARNERS[0]
    folds = StratifiedGroupKFold(INNER_FOLDS, shuffle=True, random_state=0)
    scores = np.full((len(LEARNERS), label.size), np.nan)
    for train, test in folds.split(features, label, group):
        if np.unique(label[train]).size == 2:
            for place, name in enumerate(LEARNERS):
                scores[place, test] = learner_scores(
                    name, features[train], label[train], features[test]
                )
    there = ~np.isnan(scores[0])
    if np.unique(label[there]).size < 2:
        return LEARNERS[0]
    aucs = [roc_auc_score(label[there], each[there]) for each in scores]
    return LEARNERS[int(np.argmax(np.round(aucs, 9)))]


def seen_facts(view: ViewConfig) -> tuple[str, ...]:
    """The facts that a network can see: of a picture in its proportions their ratio, too.

    Args:
        view: what it sees of a picture.
    """
    return (*SEEN_FACTS, "aspect") if view.is_padded else SEEN_FACTS


def facts_of_views(images: pa.Table) -> pd.DataFrame:
    """Facts of what the networks see of each image, by image_id, under the names of the file's.

    Of a picture that is cut or cleaned before it goes in: size, grey levels and sharpness of what
    is left of it. Share of overlay and windows are the file's.

    Args:
        images: table `images` of a manifest.
    """
    facts = facts_of_files(images)
    has_box = facts["view_box"].notna()
    sides = np.array(facts.loc[has_box, "view_box"].tolist(), np.float64).reshape(-1, 4)
    facts.loc[has_box, "width"] = sides[:, 2] - sides[:, 0]
    facts.loc[has_box, "height"] = sides[:, 3] - sides[:, 1]
    for name in ("mean", "sd", "sharpness"):
        facts[name] = facts[f"view_{name}"].astype(np.float64).fillna(facts[name])
    return facts


def facts_of_files(images: pa.Table) -> pd.DataFrame:
    """Facts of the whole pictures, by image_id.

    Args:
        images: table `images` of a manifest.
    """
    facts: pd.DataFrame = images.to_pandas().drop_duplicates("image_id")
    return facts.set_index("image_id")


def shortcut_scores(
    images: pa.Table,
    splits: pa.Table,
    names: Sequence[str] = SHORTCUT_FACTS,
    *,
    of_files: bool = False,
) -> ShortcutScores:
    """Scores of the tested images, by models fitted on other images' facts.

    As with the networks, an image has the mean of the models of the splits that tested it. A score
    counts by its rank in its split's test part: two learners' probabilities are on different
    scales, and put together as they are they would tell the classes apart less well than either.

    Args:
        images: table `images` of the study's manifest.
        splits: the study's table `splits`.
        names: the facts, of `SHORTCUT_FACTS`.
        of_files: whether the whole pictures' facts count, whatever of them goes in.
    """
    facts = facts_of_files(images) if of_files else facts_of_views(images)
    facts = facts.assign(aspect=facts["width"] / facts["height"])
    tests, scores, choices = [], [], []
    for _, part in splits.to_pandas().sort_values(["split", "image_id"]).groupby("split"):
        train, test = (part[part["role"] == role] for role in ("train", "test"))
        features, others = (
            facts.loc[rows["image_id"], list(names)].to_numpy(np.float64) for rows in (train, test)
        )
        label = train["label"].to_numpy(np.int64)
        choices.append(chosen_learner(features, label, train["group_id"].to_numpy(object)))
        each = [_rank_shares(learner_scores(name, features, label, others)) for name in LEARNERS]
        tests.append(test)
        scores.append([*each, each[LEARNERS.index(choices[-1])]])
    rows = pd.concat(tests)
    unit = rows["patient_id"].where(rows["patient_id"].notna(), rows["group_id"])
    shares = np.concatenate(scores, axis=1)
    *learners, baseline = (
        out_of_fold_ensemble(
            OutOfFoldPredictions(
                split=rows["split"].to_numpy(np.int64),
                image=rows["image_id"].to_numpy(object),
                group=rows["group_id"].to_numpy(object),
                unit=unit.to_numpy(object),
                label=rows["label"].to_numpy(np.int64),
                margin=np.log(share) - np.log1p(-share),
            )
        )
        for share in shares
    )
    return ShortcutScores(dict(zip(LEARNERS, learners, strict=True)), baseline, tuple(choices))


def _rank_shares(scores: FloatArray) -> FloatArray:
    """Each score's place among these, between 0 and 1; equal ones share theirs."""
    return np.asarray((rankdata(scores) - 0.5) / scores.size)


def shortcuts_table(
    study_id: str,
    predictions: pa.Table,
    splits: pa.Table,
    config: StudyConfig,
    *,
    images: pa.Table,
) -> pa.Table:
    """The study's rows of `shortcuts`: each network against models that see facts of the file.

    All figures are AUCs on the same images, each tested image once, scored by the mean of the
    models, networks or learners, of the splits that tested it. Intervals and P take patients as the
    independent units (DeLong's, clustered) and hold for these models: they say nothing of other
    training sets. A network is compared with the learner that each split chose on its training part
    (`chosen_learner`): no image that a split tests has a part in that
    split's choice.

    Two questions are asked, each a family of its own for Holm's adjustment: whether a network tells
    more than `SEEN_FACTS`, which it sees as well (columns `seen_*`), and whether it tells more than
    all of `SHORTCUT_FACTS`, the picture's size among them, which it is not given.

    Args:
        study_id: goes into every row.
        predictions: table `predictions` of the study.
        splits: its table `splits`.
        config: gives the architectures.
        images: table `images` of its manifest.
    """
    networks = out_of_fold_ensembles(predictions, splits, config.architectures)
    rows: list[_Row] = [{"study_id": study_id, "architecture": name} for name in networks]
    own_facts = seen_facts(config)
    for prefix, names in (("", SHORTCUT_FACTS), (SEEN_PREFIX, own_facts)):
        leads = _lead_rows(networks, shortcut_scores(images, splits, names))
        for row, lead in zip(rows, leads, strict=True):
            row |= {f"{prefix}{name}": value for name, value in lead.items()}
    file_auc = None
    if config.region != "whole" or config.clean:
        whole = shortcut_scores(images, splits, own_facts, of_files=True).baseline
        file_auc = auc_estimate(whole.label, whole.margin, whole.unit).value
    for row, network in zip(rows, networks.values(), strict=True):
        row |= {"file_auc": file_auc}
        auc = auc_estimate(network.label, network.margin, network.unit).value
        row |= {"auc": auc, "n": network.networks, "n_images": network.label.size}
    return rows_to_table("shortcuts", rows)


def _lead_rows(networks: Ensembles, shortcuts: ShortcutScores) -> list[_Row]:
    """Each network's lead over one set of facts."""
    aucs = {
        f"{name}_auc": auc_estimate(each.label, each.margin, each.unit).value
        for name, each in shortcuts.learners.items()
    }
    baseline = shortcuts.baseline
    own = auc_estimate(baseline.label, baseline.margin, baseline.unit)
    # Of learners that as many splits chose the order of `LEARNERS` decides.
    counts = Counter(shortcuts.choices)
    usual = max(LEARNERS, key=counts.__getitem__)
    leads = [
        paired_auc_test(network.label, network.margin, baseline.margin, network.unit)
        for network in networks.values()
    ]
    return [
        {
            "shortcut_auc": own.value,
            "ci_low": own.low,
            "ci_high": own.high,
            "lead": lead.difference,
            "lead_low": lead.ci_low,
            "lead_high": lead.ci_high,
            "p": lead.p,
            "p_adjusted": p_adjusted,
            "learner": usual,
            "learner_splits": counts[usual],
        }
        | aucs
        for lead, p_adjusted in zip(leads, holm([lead.p for lead in leads]), strict=True)
    ]


def shortcuts_tell(rows: Sequence[Mapping[str, Any]], prefix: str = "") -> bool:
    """Whether facts of the file alone tell the classes apart better than chance.

    Args:
        rows: of `shortcuts`.
        prefix: of the columns of these facts: none, or `SEEN_PREFIX`.
    """
    return any((row[f"{prefix}ci_low"] or 0.0) > CHANCE_AUC for row in rows)
