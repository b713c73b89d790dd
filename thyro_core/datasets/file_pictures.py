"""The pictures of an image set's files: a picture file is one, a DICOM object may be several."""

import hashlib
from functools import partial

from thyro_core.config import IngestConfig
from thyro_core.host import cores
from thyro_core.imaging.decode import UndecodableError, decode
from thyro_core.imaging.dicom import is_dicom
from thyro_core.imaging.pictures import FilePictures, Picture, read_pictures
from thyro_core.imaging.sandbox import DecoderDiedError, DecoderPool
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.types import Grey

DECODES = RetryPolicy(
    attempts=2, first_wait=0.0, retry_on=lambda error: isinstance(error, DecoderDiedError)
)
"""A file is decoded a second time after its decoder died over it."""

_DEATHS = {
    "crashed_decoder": "its decoder died over it",
    "hung_decoder": "its decoder came to no end",
}


def _no_pseudonym(_patient_id: str | None, _issuer: str | None) -> None:
    """A study's patients come of the headers, see `imaging.dicom_header`."""


class FileReader:
    """Reads files by the rules of an ingest, from any thread; to be closed.

    DICOM is decoded in processes of its own, as a screening does it: a file may kill its decoder.

    Args:
        rules: bounds.
    """

    def __init__(self, rules: IngestConfig) -> None:
        self._rules = rules
        read = partial(read_pictures, bounds=rules, pseudonymise=_no_pseudonym)
        self._decode = DecoderPool(read, cores())

    def pictures(self, data: bytes) -> FilePictures:
        """The pictures of a file, each decoded or refused with its reason.

        Args:
            data: all bytes of the file.
        """
        if is_dicom(data):
            try:
                return DECODES.call(partial(self._decode, data), "decoder")
            except RetriesExhaustedError as exhaustion:
                detail = f"{_DEATHS[str(exhaustion.error)]}, {exhaustion.attempts} times"
                return FilePictures((_refusal_of(data, detail),))
        try:
            image = decode(data, self._rules)
        except UndecodableError as error:
            return FilePictures((_refusal_of(data, error.detail),))
        picture = Picture(_file_id(data), grey=image.grey, overlay_share=image.overlay_share)
        return FilePictures((picture,))

    def grey(self, data: bytes, image_id: str) -> Grey | None:
        """One picture of a file; None: the file has no such picture."""
        pictures = self.pictures(data).pictures
        return next((each.grey for each in pictures if each.image_id == image_id), None)

    def close(self) -> None:
        """End the processes."""
        self._decode.close()


def _file_id(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _refusal_of(data: bytes, detail: str) -> Picture:
    return Picture(_file_id(data), reason="undecodable", detail=detail)
