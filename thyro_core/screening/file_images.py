"""The images of a file, by whatever way it comes: from a night's batch or as a single file."""

from functools import partial

from pydantic import SecretStr

from thyro_core.datasets.file_pictures import DECODES
from thyro_core.imaging.sandbox import DecoderProcess
from thyro_core.pseudonyms import Pseudonymiser
from thyro_core.screening.config import ScreeningRules
from thyro_core.screening.contents import Contents
from thyro_core.screening.reader import ScreeningImage, read_screening_images
from thyro_core.store.retry import RetriesExhaustedError


class FileImages:
    """Decodes contents in a process of its own, which it keeps from file to file.

    Args:
        rules: bounds and measures.
        key: secret of the pseudonyms; None: none are made.
    """

    def __init__(self, rules: ScreeningRules, key: SecretStr | None) -> None:
        self._rules = rules
        read = partial(read_screening_images, rules=rules, pseudonymise=Pseudonymiser(key))
        self._decode = DecoderProcess(read)

    def read(self, contents: Contents, nameless_id: str) -> list[ScreeningImage]:
        """The images of a file, or one with the reason why there are none; never raises for them.

        Args:
            contents: of the file.
            nameless_id: the image's id where there are no bytes to make a hash of.
        """
        data, file_id = contents.data, contents.file_id
        if file_id is None:
            detail = contents.detail if contents.fault else "the file is empty"
            reason = contents.fault or "undecodable"
            return [ScreeningImage(nameless_id, 0, reason=reason, detail=detail)]
        if data is None:
            detail = f"more than max_bytes = {self._rules.max_bytes}"
            return [ScreeningImage(file_id, 0, file_id, reason="too_large", detail=detail)]
        # Not the file's name: it may be a person's.
        name = file_id[:12]
        try:
            return DECODES.call(partial(self._decode, data), name)
        except RetriesExhaustedError as attempts_end:
            reason, detail = str(attempts_end.error), f"{attempts_end.attempts} times"
            return [ScreeningImage(file_id, 0, file_id, reason=reason, detail=detail)]

    def close(self) -> None:
        """End the process."""
        self._decode.close()
