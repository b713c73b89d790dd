"""What an archive lets this machine do: answer, list, give and take; nothing stays there."""

import tempfile
from contextlib import closing
from pathlib import Path

from thyro_core.archive.dicomweb import Archive, parse_address
from thyro_core.archive.results_target import NodeTarget, open_target
from thyro_core.errors import InputError
from thyro_core.settings import Settings


def probe_source(address: str, settings: Settings) -> str:
    """What is found of an archive that nights take their images from, in words.

    Args:
        address: of the archive.
        settings: credentials and patience.

    Raises:
        InputError: it refuses, or gives nothing of what it lists.
        StoreError: it does not answer.
    """
    archive_address = parse_address(address)
    with closing(Archive(archive_address, settings)) as archive:
        study = next(archive.studies(), None)
        if study is None:
            return f"{archive_address.root} answers; no study is what the address asks for"
        instance = next(archive.instances(study.uid), None)
        if instance is None:
            return f"{archive_address.root} answers and lists; its first study is empty"
        with tempfile.TemporaryDirectory(prefix="thyro-") as folder:
            if not archive.save(instance, Path(folder, "instance")):
                msg = (
                    f"{archive_address.root}: expected to be given what it lists, found a refusal; "
                    "allow WADO-RS there"
                )
                raise InputError(msg)
    return f"{archive_address.root} answers, lists and gives"


def probe_target(text: str, settings: Settings) -> str:
    """What is found of an archive that results go to, in words; nothing is stored.

    Args:
        text: THYRO_RESULTS_TO.
        settings: credentials and patience.

    Raises:
        InputError: it refuses.
        StoreError: it does not answer.
    """
    with closing(open_target(text, settings)) as target:
        target.check_permission()
    how = "C-STORE" if isinstance(target, NodeTarget) else "STOW-RS"
    return f"results: {text} answers and takes them ({how})"
