"""How the split jobs of a submission to a cluster ended: one small object a split in the store.

The driver on the cluster writes them, and the flow that waits elsewhere reads them. Objects of an
earlier submission differ from them by its name.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace

from thyro_core.errors import Failure
from thyro_core.store.keys import outcome_key
from thyro_core.store.store import Store
from thyro_core.study.job import SplitOutcome
from thyro_core.urls import redact


def write_outcome(
    store: Store, study_id: str, submission: str, split: int, outcome: SplitOutcome | Failure
) -> None:
    """Record how a split job ended.

    Args:
        store: of the study.
        study_id: the study.
        submission: name of the cluster's job that trained the split.
        split: number of the split.
        outcome: its outcome, or why it cannot be finished.
    """
    if isinstance(outcome, Failure):
        end: dict[str, object] = {"failure": _plain(outcome)}
    else:
        failed = {name: _plain(failure) for name, failure in outcome.failed.items()}
        end = {"split": outcome.split, "trained": outcome.trained, "failed": failed}
    record = {"submission": submission} | end
    store.write(outcome_key(study_id, split), json.dumps(record).encode())


def read_outcomes(
    store: Store, study_id: str, submission: str, splits: Iterable[int]
) -> dict[int, SplitOutcome | Failure]:
    """Outcomes of a submission's splits, or why they cannot be finished; running ones are absent.

    Args:
        store: of the study.
        study_id: the study.
        submission: name of the cluster's job.
        splits: numbers of the splits to look for.
    """
    keys = {outcome_key(study_id, split): split for split in splits}
    outcomes: dict[int, SplitOutcome | Failure] = {}
    for key, data in store.read_all(list(keys)).items():
        record = json.loads(data)
        if record["submission"] != submission:
            continue
        if "failure" in record:
            outcomes[keys[key]] = Failure(**record["failure"])
        else:
            failed = {name: Failure(**plain) for name, plain in record["failed"].items()}
            outcomes[keys[key]] = SplitOutcome(record["split"], tuple(record["trained"]), failed)
    return outcomes


def _plain(failure: Failure) -> dict[str, object]:
    return asdict(replace(failure, message=redact(failure.message)))
