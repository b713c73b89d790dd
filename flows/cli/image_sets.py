"""Image sets that commands read in this process, without Prefect."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.cli.console import err

if TYPE_CHECKING:
    from thyro_core.config import StudyConfig
    from thyro_core.datasets.manifest import Manifest
    from thyro_core.store.store import Store


def read_manifest(sources: Sequence[str], study: "StudyConfig", store: "Store") -> "Manifest":
    """Read, judge and pack image sets for a study's networks, and show how far it is.

    Names of files are kept or not as the settings say.

    Args:
        sources: their addresses; of several each is a centre.
        study: gives the rules, and the sizes of the packs.
        store: where the manifest goes.

    Raises:
        InputError: a set cannot be read as a whole, or changes while it is read.
    """
    from thyro_core.pseudonyms import path_hider

    with err.status("reading images") as status:
        from thyro_core.pseudonyms import path_hider
        from thyro_core.settings import Settings
        from thyro_core.study.lifecycle import ingest_for_study

        return ingest_for_study(
            sources,
            study,
            store,
            lambda n_done, total: status.update(f"decoded {n_done} of {total} images"),
            hide_path=path_hider(Settings()),
        )
