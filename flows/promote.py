"""Promotion as a Prefect flow: a finished study's models become the champion."""

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from thyro_core.card_text import card_markdown
from thyro_core.promotion import Promotion, PromotionConfig
from thyro_core.promotion import promote as run
from thyro_core.settings import Settings, scratch_folder
from thyro_core.storage import open_store


@flow(name="promote")
def promote(config: PromotionConfig, store: str | None = None) -> str:
    """Bundle a study's models and make them the champion, unless they are worse; research use only.

    Args:
        config: what to promote, and how.
        store: fsspec URL for everything that is kept; empty: THYRO_STORE.

    Returns:
        The model's id.
    """
    settings = Settings()
    scratch = scratch_folder(settings)
    scratch.mkdir(parents=True, exist_ok=True)
    done = run(open_store(store or settings.store), config, scratch, get_run_logger().info)
    model_id = done.bundle.model_id
    create_markdown_artifact(
        card_markdown(done.bundle.card, standing(done)),
        key=f"model-{model_id}",
        description="The promoted model's card",
    )
    return model_id


def standing(done: Promotion) -> str:
    """One sentence on how the model came to be the champion."""
    change = done.change
    if change is None:
        return "It was the champion already."
    before = f"in place of {change.before}" if change.before else "the first one"
    return f"Champion, {before} ({change.how}: {change.why}); {change.gate}."
