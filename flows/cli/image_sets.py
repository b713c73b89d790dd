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
    from thyro_core.datasets.joined_sources import Sources
    from thyro_core.datasets.manifest import ingest
    from thyro_core.datasets.periods import check_sources
    from thyro_core.pseudonyms import path_hider
    from thyro_core.settings import Settings

    check_sources(study, len(sources))
    sides = sorted({study.side(architecture) for architecture in study.architectures})
    with err.status("reading images") as status:
        return ingest(
            Sources(sources, study.centre_column),
            study.ingest(),
            store,
            sides,
            lambda n_done, total: status.update(f"decoded {n_done} of {total} images"),
            hide_path=path_hider(Settings()),
        )
