"""Where a study runs: never hashed, because it must not change a result."""

from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Read from `THYRO_*` environment variables; the CLI's options stand above them."""

    model_config = SettingsConfigDict(env_prefix="THYRO_", extra="ignore", frozen=True)

    store: str = Field("./thyro-store", description="fsspec URL under which everything lies.")
    weights: str | None = Field(
        None, description="Mirror of ImageNet weights: folder or URL with <arch>.safetensors."
    )
    scratch: Path | None = Field(
        None, description="Node-local folder for packs and weights; default: the user's cache."
    )
    ray: str = Field(
        "local",
        description="Ray address: local starts an embedded one; auto, host:port; or the dashboard "
        "that takes a study's job, http://head:8265.",
    )
    cpus_per_job: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="CPU cores, and torch threads, of a split job (of each of its workers)."
    )
    workers_per_job: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="Processes that share each batch of a split job, for networks or batches that "
        "outgrow one GPU; each has cpus_per_job cores and, if there are GPUs, one of its own.",
    )
    gpus_per_job: Annotated[float, Field(ge=0.0, le=8.0)] | None = Field(
        None, description="GPUs (or a fraction) of a split job; empty: shared evenly, if any."
    )
    job_retries: Annotated[int, Field(ge=0, le=20)] = Field(
        3, description="How often a split job whose process died is started again."
    )
    node_patience: Annotated[float, Field(ge=0.0)] = Field(
        600.0,
        description="How long a study waits while its cluster has no node that can run a "
        "job, because one was lost or a new one is on its way [s].",
    )
    checkpoint_seconds: Annotated[float, Field(ge=0.0)] = Field(
        60.0, description="Least time between two checkpoints of a job [s]; 0: every epoch."
    )
    store_patience: Annotated[float, Field(ge=0.0)] = Field(
        120.0, description="How long a store on S3 may be away or fail before a run ends [s]."
    )
    keep_models: bool = Field(True, description="Keep each job's trained weights in the store.")
    screening_cron: str = Field("0 2 * * *", description="When the nightly screening starts.")
    screening_batch: str | None = Field(
        None, description="The images of a night: folder or fsspec URL; empty: no nightly run."
    )
    keep_names: bool | None = Field(
        None,
        description="Whether paths of files are kept: true in screenings too, only where no name "
        "tells of a patient; false not by an ingest either, which writes pseudonyms if there is "
        "a key for them; empty: by an ingest alone.",
    )
    timezone: str = Field(
        "UTC", description="IANA time zone in which a screening's night ends and the cron is read."
    )
    pseudonym_key: SecretStr | None = Field(
        None,
        description="Secret of at least 16 bytes that patients' pseudonyms are made with; empty: "
        "patient ids are dropped.",
    )
    dicomweb_user: str | None = Field(
        None, description="User at the DICOMweb archive that nights take their images from."
    )
    dicomweb_password: SecretStr | None = Field(None, description="Password of dicomweb_user.")
    dicomweb_token: SecretStr | None = Field(
        None, description="Bearer token for the archive, instead of user and password."
    )
    dicomweb_certificate: Path | None = Field(
        None, description="PEM file of a client certificate and its key, which the archive asks."
    )
    results_to: str | None = Field(
        None,
        description="Archive that takes a night's results as DICOM (a report for each study, and "
        "maps): dicomweb+https://host/dicom-web or dicom://TITLE@host:port; empty: none is sent.",
    )
    viewer_link: str | None = Field(
        None,
        description="Pattern of an image viewer's web address: https://viewer/?file={name}; a "
        "worklist's rows then link to it. It may name {name}, {file_id}, {image_id}, {frame}, "
        "{exam_id} and {patient_id}, as the table has them; a row that lacks one has no link.",
    )
    worklist_links: str | None = Field(
        None,
        description="Pattern of an image viewer's web address with {study} in it, which stands for "
        "the StudyInstanceUID: https://viewer/ohif?StudyInstanceUIDs={study}. Rows of the pages "
        "that `thyro serve` serves then link to their study; the identifiers are kept in one file, "
        "encrypted with pseudonym_key.",
    )
    pages_password: SecretStr | None = Field(
        None,
        description="Password of the worklists' pages that `thyro serve` serves, at least 8 "
        "letters; empty: none is asked for, and only this machine is served.",
    )
    pages_names: str = Field(
        "",
        description="Names, comma-separated, by which the pages are reached besides the machine's "
        "own name and bare addresses: a proxy's, say.",
    )
    notify: str | None = Field(
        None,
        description="Notification block of Prefect's, as TYPE/NAME, that `thyro serve` has send "
        "word of nights that fail, refer images or do not begin; empty: none is sent.",
    )
    log_json: bool = Field(False, description="Write logs as JSON, one object a line.")
