"""A model's evaluations on external images: they come after its card, which is sealed."""

from thyro_core.errors import InputError, amount
from thyro_core.store.store import Store
from thyro_core.validation.evaluate import (
    SCORED_COUNT,
    evaluation_figures,
    evaluation_ids,
    load_evaluation,
)
from thyro_core.validation.promise import promise_words
from thyro_core.validation.wording import estimate


def evaluation_lines(store: Store, model_id: str) -> list[str]:
    """What a store's evaluations of a model say, by their ids; a damaged one says that it is.

    Args:
        store: holds them.
        model_id: the model.
    """
    lines = []
    for evaluation_id in evaluation_ids(store):
        try:
            record = load_evaluation(store, evaluation_id)
            figures = evaluation_figures(store, evaluation_id)
        except InputError as error:
            lines.append(f"damaged evaluation: {error}")
            continue
        if record.model_id != model_id:
            continue
        auc = figures["none", "auc"]
        place = record.source or record.manifest_id
        images = amount(record.counts[SCORED_COUNT], "image")
        lines.append(
            f"outside, on {images} of {place}: AUC {estimate(auc)}, inside {auc['internal']:.3f} "
            f"(evaluation {evaluation_id}){promise_words(figures)}"
        )
    return lines
