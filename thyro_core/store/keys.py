"""The keys of the store; no other module spells one."""

EVALUATIONS = "evaluations"
"""Folder of all evaluations."""

PACKS = "packs"
"""Folder of all packs."""


def table_key(table: str, **keys: str | int) -> str:
    """Key of a table's part; the hive keys stand in the order given."""
    hive = "".join(f"{name}={value}/" for name, value in keys.items())
    return f"tables/{table}/{hive}part-0.parquet"


def table_prefix(table: str) -> str:
    """Folder that holds all parts of a table."""
    return f"tables/{table}"


def pack_key(manifest_id: str, side: int) -> str:
    """The uint8 array of a manifest's included images at one side length [pixels]."""
    return f"{PACKS}/{manifest_id}/{side}.npy"


def mask_key(manifest_id: str) -> str:
    """The nodule masks of a manifest's included images; absent if none has a mask."""
    return f"{PACKS}/{manifest_id}/masks.npy"


def manifest_key(manifest_id: str) -> str:
    """Summary of an ingest: counts, warnings, rules; the rows are in the `images` table."""
    return f"manifests/{manifest_id}.json"


def study_folder(study_id: str) -> str:
    """Folder of everything of a study but its tables."""
    return f"studies/{study_id}"


def study_key(study_id: str) -> str:
    """The study's own description: config, manifest, weights, precision."""
    return f"studies/{study_id}/config.json"


def study_lock_key(study_id: str) -> str:
    """The lock of a study's running driver."""
    return f"{study_folder(study_id)}/lock"


def checkpoint_key(study_id: str, split: int, architecture: str) -> str:
    """The latest resumable state of an unfinished job's architecture."""
    return f"{checkpoints_folder(study_id)}/split={split}/architecture={architecture}.pt"


def checkpoints_folder(study_id: str) -> str:
    """Folder of all checkpoints of a study."""
    return f"{study_folder(study_id)}/checkpoints"


def progress_folder(study_id: str) -> str:
    """Folder of the progress of a study's jobs."""
    return f"{study_folder(study_id)}/progress"


def model_key(study_id: str, split: int, architecture: str) -> str:
    """The trained weights of a finished architecture."""
    return f"studies/{study_id}/models/split={split}/architecture={architecture}.safetensors"


def run_key(study_id: str, split: int, architecture: str) -> str:
    """The record of one finished or failed architecture; gathered into the `runs` table."""
    return f"studies/{study_id}/runs/split={split}/architecture={architecture}.json"


def progress_key(study_id: str, split: int) -> str:
    """The progress of a running split job."""
    return f"{progress_folder(study_id)}/split={split}.json"


def placement_key(study_id: str, split: int, rank: int = 0) -> str:
    """The host of a worker of a running split job; deleted with its progress."""
    worker = f"-worker={rank}" if rank else ""
    return f"{progress_folder(study_id)}/attempt-split={split}{worker}.json"


def outcome_key(study_id: str, split: int) -> str:
    """How a split job on a cluster ended; it goes the way of its position."""
    return f"{progress_folder(study_id)}/outcome-split={split}.json"


def weights_key(architecture: str, sha256: str) -> str:
    """Starting weights as a study used them."""
    return f"weights/{architecture}-{sha256[:16]}.safetensors"


def summary_key(study_id: str) -> str:
    """The study's result in one Markdown page."""
    return f"studies/{study_id}/summary.md"


def bundle_prefix(model_id: str) -> str:
    """Folder of a promoted model: its card, its members and its reference set."""
    return f"registry/models/{model_id}"


def card_key(model_id: str) -> str:
    """A promoted model's card; written last, so that its presence means a complete bundle."""
    return f"{bundle_prefix(model_id)}/card.json"


def champion_key() -> str:
    """The promoted model in use, and its predecessors."""
    return "registry/champion.json"


def screening_prefix(date: str, batch_id: str) -> str:
    """Folder of a night's batch (date as 2026-11-25), except for its tables."""
    return f"screening/{date}/{batch_id}"


def night_key(date: str, batch_id: str) -> str:
    """A night's batch: address, model, rules; enough to conclude it after a crash."""
    return f"{screening_prefix(date, batch_id)}/night.json"


def chunk_key(date: str, batch_id: str, kind: str, name: str) -> str:
    """One block of an unfinished run: the rows, the maps or other results of its images."""
    return f"{screening_prefix(date, batch_id)}/{kind}/{name}.parquet"


def known_hashes_key(date: str, batch_id: str, name: str) -> str:
    """Sorted hashes of files, or of pictures, that a run has met; it exists only during the run."""
    return f"{screening_prefix(date, batch_id)}/known-{name}.bin"


def archive_ledger_key(archive_id: str) -> str:
    """Key of what nights have taken from a DICOMweb archive, by keyed hashes."""
    return f"archives/{archive_id}.json"


def open_results_folder(target_id: str) -> str:
    """Folder of the marks of nights' batches whose results are not all sent to an archive."""
    return f"results/{target_id}/open"


def open_results_key(target_id: str, date: str, batch_id: str) -> str:
    """The mark that results of a night's batch are still to be sent to an archive."""
    return f"{open_results_folder(target_id)}/{date}/{batch_id}"


def results_record_key(target_id: str, date: str, batch_id: str) -> str:
    """Key of what of a night's batch an archive has got the results of, by hashes of paths."""
    return f"results/{target_id}/sent/{date}/{batch_id}.json"


def identifiers_key() -> str:
    """The one object with identifiers of studies: encrypted, apart from all tables."""
    return "identifiers/studies.bin"


def path_salt_key() -> str:
    """Random bytes, one for the whole store, that the hashes of files' paths are made with."""
    return "screening/salt"


def pictures_key(date: str, batch_id: str) -> str:
    """Small pictures of the images to be looked at; of the referred ones with their maps."""
    return f"{screening_prefix(date, batch_id)}/pictures.parquet"


def sample_key(date: str, batch_id: str) -> str:
    """Embeddings of a random sample of the scored images."""
    return f"{screening_prefix(date, batch_id)}/sample.parquet"


def worklist_key(date: str, suffix: str) -> str:
    """A night's worklist over all its batches: `csv` or `html`."""
    return f"screening/{date}/worklist.{suffix}"


def feedback_key(date: int, name: str) -> str:
    """A part of the table `feedback`, which grows by parts: none is ever written anew."""
    return f"tables/feedback/date={date}/part-{name}.parquet"


def pages_key() -> str:
    """Where the pages of the store's nights are served, while they are."""
    return "serving/pages.json"


def screening_lock_key() -> str:
    """The lock of the running screening run."""
    return "screening/lock"


def report_key(study_id: str) -> str:
    """The study's report: one HTML file."""
    return f"studies/{study_id}/report.html"


def checklist_key(study_id: str) -> str:
    """The reporting checklists beside the report: one CSV file."""
    return f"studies/{study_id}/checklist.csv"


def evaluation_folder(evaluation_id: str) -> str:
    """Folder of a model's evaluation on another image set."""
    return f"{EVALUATIONS}/{evaluation_id}"


def evaluation_key(evaluation_id: str) -> str:
    """The record of an evaluation; written last, so that its presence means that it is done."""
    return f"{evaluation_folder(evaluation_id)}/evaluation.json"


def evaluation_chunk_key(evaluation_id: str, start: int) -> str:
    """The members' log odds of some images of an unfinished evaluation."""
    return f"{evaluation_folder(evaluation_id)}/margins-{start:09d}.npy"


def evaluation_page_key(evaluation_id: str) -> str:
    """The evaluation's report: one HTML file."""
    return f"{evaluation_folder(evaluation_id)}/report.html"
