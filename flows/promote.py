"""Promotion as a Prefect flow: a finished study's models become the champion."""

from typing import Annotated

from prefect import flow, get_run_logger

from flows.artifacts import ProgressBar, completed_state, name_run, run_of, show_page, show_table
from flows.forms import Address, ModelForm
from flows.retries import step
from thyro_core.host import scratch_folder
from thyro_core.registry.card_pages import card_markdown
from thyro_core.registry.champion import champion_weakness
from thyro_core.registry.promote import Promotion, PromotionConfig
from thyro_core.registry.promote import promote as run
from thyro_core.settings import Settings
from thyro_core.store.store import open_store
from thyro_core.validation.listing import evaluation_lines


@flow(name="promote")
def promote(
    config: Annotated[PromotionConfig, ModelForm(("study_id",))], store: Address = ""
) -> str:
    """Bundle a study's models and make them the champion, unless they are worse; research use only.

    Args:
        config: Which models to promote, and how.
        store: Where the study is kept, such as s3://bucket/thyro. Empty: the server's own store.

    Returns:
        The model's id.
    """
    with run_of("promote"):
        name_run(f"promote-{config.study_id}")
        model_id, how = _promote(config, store or Settings().store)
        return completed_state(model_id, f"{model_id}: {how}")


@step("model")
def _promote(config: PromotionConfig, store: str) -> tuple[str, str]:
    bar = ProgressBar(f"promotion of {config.study_id}")
    bar.show(0.0)
    scratch = scratch_folder(Settings())
    scratch.mkdir(parents=True, exist_ok=True)
    opened_store, log = open_store(store), get_run_logger()
    promotion = run(opened_store, config, scratch, log.info)
    if (weakness := champion_weakness(opened_store)) is not None:
        log.warning(weakness)
    bar.show(100.0)
    model_id, how = promotion.bundle.model_id, standing(promotion)
    rows = [["what", "value"], ["model", model_id], ["study", config.study_id], ["standing", how]]
    show_table(f"model-{model_id}-standing", rows, "How it came to be the champion")
    lines = [f"- {line}" for line in evaluation_lines(opened_store, model_id)]
    page = "\n".join([card_markdown(promotion.bundle.card, how), *lines])
    show_page(f"model-{model_id}", page, "The model's card")
    return model_id, how


def standing(promotion: Promotion) -> str:
    """One sentence on how the model came to be the champion."""
    change = promotion.change
    if change is None:
        return "It was the champion already."
    before = f"in place of {change.before}" if change.before else "the first one"
    return f"Champion, {before} ({change.how}: {change.why}); {change.gate}."
