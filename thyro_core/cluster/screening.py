"""A screening on Ray Data: list, read and decode, score, in a stream through two pools of actors.

    list (one task) -> block of names -> decoders -> block of images -> ensemble -> chunk, counts

A block is one row that holds a packed Arrow table, and Ray Data passes it on at once. What is on
its way is bounded by Ray's own backpressure, so that memory does not grow with the batch; the
driver sees counts alone. A worker that dies ends the stream: `run_blocks` starts it again, and
what stands in the store is passed over. Files that kill their decoder do not reach Ray, see
`thyro_core.imaging.sandbox`.
"""

import logging
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray import exceptions
from ray.data import ActorPoolStrategy, DataContext
from ray.util.annotations import RayDeprecationWarning

from thyro_core.cluster.resources import Capacity
from thyro_core.errors import InputError, ThyroError
from thyro_core.screening.decode import (
    BlockDecoder,
    DecodedBlock,
    ScreeningJob,
    from_bytes,
    names_of,
    names_table,
    to_bytes,
)
from thyro_core.screening.files import blocks
from thyro_core.screening.rules import Counts
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy

BLOCK = 64
"""Files of a block: what a crash costs, and a chunk's worth."""

_COUNTS = tuple(asdict(Counts()))
# Ray Data would restart a dying actor without end.
_NO_RESTART: dict[str, Any] = {"max_restarts": 0, "max_task_retries": 0}


@dataclass(frozen=True)
class Pools:
    """How many actors work, and what each holds."""

    scorers: int
    scorer_cpus: float
    scorer_gpus: float
    decoders: int
    decoder_cpus: float


def pools(capacity: Capacity, cpus: int, gpus: float | None) -> Pools:
    """Actors for a cluster.

    On GPUs decoding is what is short of processors: all but a core for each scorer decode. On CPUs
    the ensemble takes nearly all the time: scorers get all cores, and a decoder for each four
    scorers runs beside them.

    Args:
        capacity: what the cluster has.
        cpus: cores, and torch threads, of a scorer without a GPU.
        gpus: GPUs (or a fraction) of a scorer; None: a whole one where there are any.
    """
    if gpus is None:
        gpus = 1.0 if capacity.gpus >= 1 else 0.0
    if gpus > 0:
        scorers = max(1, int(capacity.gpus / gpus))
        share = min(1.0, capacity.cpus / (2 * scorers))
        decoders = max(1, int(capacity.cpus - scorers * share))
        return Pools(scorers, share, gpus, decoders, min(1.0, share))
    scorers = max(1, int(capacity.cpus // cpus))
    # Actors that hold no core are not counted, and so never wait for one.
    return Pools(scorers, min(float(cpus), capacity.cpus), 0.0, -(-scorers // 4), 0.0)


def run_blocks(
    job: Callable[[], ScreeningJob],
    sizes: Pools,
    retries: int,
    progress: Callable[[Counts], None],
) -> Counts:
    """Screen what is new in a batch, block by block.

    Args:
        job: makes the job, with the hashes to pass over as they are now; called at each start.
        sizes: from `pools`.
        retries: how often to start again when a worker died.
        progress: called with the counts so far after each block.

    Returns:
        The counts of the last start: they cover every file that was listed.

    Raises:
        ThyroError: workers died too often, or met an error.
    """
    policy = RetryPolicy(attempts=retries + 1, first_wait=0.0, retry_on=_is_lost_worker)
    try:
        return policy.call(lambda: _run_once(job(), sizes, progress), "the workers")
    except exceptions.RayTaskError as error:
        raise _explain_failure(error) from error
    except RetriesExhaustedError as attempts_end:
        msg = (
            f"screening: workers died {attempts_end.attempts} times "
            f"({type(attempts_end.error).__name__}: out of memory, or killed); what is finished is "
            "kept: give each scorer more room (a higher THYRO_CPUS_PER_JOB), and start the same "
            "command again"
        )
        raise ThyroError(msg) from attempts_end.error


def _is_lost_worker(error: Exception) -> bool:
    is_own_error = isinstance(error, exceptions.RayTaskError)
    return isinstance(error, exceptions.RayError) and not is_own_error


def _run_once(job: ScreeningJob, sizes: Pools, progress: Callable[[Counts], None]) -> Counts:
    total = Counts()
    with _quiet_context():
        batches: Iterable[pa.Table] = _block_dataset(job, sizes).iter_batches(
            batch_size=None, batch_format="pyarrow", prefetch_batches=0
        )
        for batch in batches:
            for row in batch.to_pylist():
                total += Counts(**row)
                progress(total)
    total.check()
    return total


def _explain_failure(error: exceptions.RayTaskError) -> ThyroError:
    """The worker's own error, if it is one for people; else the kind of error alone."""
    cause = error.cause
    while isinstance(cause, exceptions.RayTaskError):
        cause = cause.cause
    origin = cause if cause is not None else error
    while not isinstance(origin, ThyroError) and origin.__cause__ is not None:
        origin = origin.__cause__
    if isinstance(origin, InputError):
        return InputError(str(origin))
    reason = str(origin) if isinstance(origin, ThyroError) else type(origin).__name__
    return ThyroError(f"screening failed: {reason}; what is finished is kept, start it again")


@contextmanager
def _quiet_context() -> Iterator[None]:
    """Ray Data's settings for this run: every row a block of its own, no output."""
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    context = DataContext.get_current()
    settings = {
        "target_max_block_size": 1,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    before = {name: getattr(context, name) for name in settings}
    for name, value in settings.items():
        setattr(context, name, value)
    try:
        with warnings.catch_warnings():
            # Ray 2.60 wants named parameters and has none for an actor's restarts.
            warnings.simplefilter("ignore", RayDeprecationWarning)
            yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _block_dataset(job: ScreeningJob, sizes: Pools) -> "ray.data.Dataset":
    names = ray.data.from_items([{"batch": job.source}]).map_batches(
        _list, batch_format="pyarrow", num_cpus=0
    )
    images = names.map_batches(
        _Decoder,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=sizes.decoders),
        num_cpus=sizes.decoder_cpus,
        **_NO_RESTART,
    )
    return images.map_batches(
        _Scorer,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=1,
        compute=ActorPoolStrategy(size=sizes.scorers),
        num_cpus=sizes.scorer_cpus,
        num_gpus=sizes.scorer_gpus,
        **_NO_RESTART,
    )


def _list(batch: pa.Table) -> Iterator[pa.Table]:
    for source in batch["batch"].to_pylist():
        for block in blocks(source, BLOCK):
            yield pa.table({"block": [to_bytes(names_table(block))]})


class _Decoder:
    """Blocks of names -> blocks of images."""

    def __init__(self, job: ScreeningJob) -> None:
        self._decode = BlockDecoder(job)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for block_bytes in batch["block"].to_pylist():
            block = self._decode(names_of(block_bytes))
            counts = {name: [value] for name, value in asdict(block.counts).items()}
            yield pa.table({"block": [to_bytes(block.table)], **counts})


class _Scorer:
    """Blocks of images -> chunks in the store; passes on the counts."""

    def __init__(self, job: ScreeningJob) -> None:
        # Here, in the worker: the process that leads stays free of torch.
        from thyro_core.screening.score import BlockScorer

        self._score = BlockScorer(job)

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        for row in batch.to_pylist():
            counts = Counts(**{name: row[name] for name in _COUNTS})
            score_counts = self._score(DecodedBlock(from_bytes(row["block"]), counts))
            yield pa.table({name: [value] for name, value in asdict(score_counts).items()})
