"""Whether a GPU gives the same numbers twice, both ways, and after an interruption; and its memory.

Each row is one question with its answer; what raised is an answer, too, and the next one is asked.
"""

import io
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace

import torch
from gpu_setting import (
    Job,
    Setting,
    free_memory,
    network,
    pack,
    prepare,
    recording_epochs,
    setting_of,
    synchronise,
)
from laps import header, row
from torch import Tensor, nn

from thyro_core.config import Architecture
from thyro_core.training.batches import Examples, batch_bounds
from thyro_core.training.inference import predict
from thyro_core.training.loop import Recipe, start_run, train
from thyro_core.training.memory import job_cpu_bytes, job_gpu_bytes
from thyro_core.training.pooling import DeterministicPool

ODD_SIDES = (5, 7, 9, 13, 31)
"""Of the maps that are pooled to 6 x 6."""

BF16_BOUND = 2 * math.sqrt(3 * 3 + 3) * 2.0**-8
"""Of the loss of a smooth network of three layers: the roundings that tests/unit count for it."""


def weights(job: Job) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in job.run.tensors()]


def ends_like(one: Job, other: Job) -> str:
    """Whether two jobs end with the same bits; `no` says how far apart they are."""
    pairs = list(zip(weights(one), weights(other), strict=True))
    different = [(a, b) for a, b in pairs if not torch.equal(a, b)]
    if not different:
        return "yes"
    most = max(float((a.double() - b.double()).abs().max()) for a, b in different)
    return f"no: {len(different)} of {len(pairs)} tensors differ, by {most:.1e} at most"


def after(setting: Setting, architecture: Architecture, epochs: int, *, graphs: bool) -> Job:
    job = Job(setting, architecture, graphs=graphs)
    for _ in range(epochs):
        job.train_epoch()
    synchronise(setting.device)
    return job


def twice(setting: Setting, architecture: Architecture) -> str:
    jobs = [after(setting, architecture, 2, graphs=False) for _ in range(2)]
    return ends_like(*jobs)


def both_ways(setting: Setting, architecture: Architecture) -> str:
    """Eager and recorded, over so many steps that both sizes of a batch are replayed."""
    epochs = recording_epochs(batch_bounds(setting.images, setting.batch))
    eager, recorded = (after(setting, architecture, epochs, graphs=way) for way in (False, True))
    answer = ends_like(eager, recorded)
    return answer if recorded.is_replayed else f"{answer}, but nothing was replayed: see its log"


def resumed(setting: Setting, architecture: Architecture) -> str:
    """A run goes on by `train`, from the file of a checkpoint, in a network of other weights."""
    config = setting.config(epochs=4)
    whole = after(setting, architecture, 0, graphs=True)
    recipe = replace(whole.recipe, config=config, graphs=True)
    train(whole.run, whole.examples, None, recipe, lambda _: None, lambda *_: None)

    class StopHereError(Exception):
        pass

    file = io.BytesIO()

    def keep(run: object) -> None:
        torch.save(broken.run.state(), file)
        if len(broken.run.history) == 2:
            raise StopHereError
        file.seek(0)
        file.truncate()

    broken, other = (after(setting, architecture, 0, graphs=True) for _ in range(2))
    with suppress(StopHereError):
        train(broken.run, broken.examples, None, recipe, keep, lambda *_: None)
    file.seek(0)
    with torch.no_grad():
        next(other.run.model.parameters()).add_(1)
    torch.manual_seed(12345)
    other.run.restore(torch.load(file, map_location=setting.device, weights_only=True))
    train(other.run, other.examples, None, recipe, lambda _: None, lambda *_: None)
    same_losses = [e.loss for e in whole.run.history] == [e.loss for e in other.run.history]
    return ends_like(whole, other) if same_losses else "no: the losses differ"


def device_pack(setting: Setting, architecture: Architecture) -> str:
    """A pack in the device's memory against a memory map on the host."""
    job = Job(setting, architecture, graphs=False)
    side = setting.config().side(architecture)
    on_host = pack(side, setting.images, torch.device("cpu")).numpy()
    host = Examples(on_host, job.examples.rows, job.examples.labels)
    logits = [predict(job.run.model, data, setting.device) for data in (job.examples, host)]
    return "yes" if torch.equal(*logits) else "no"


def pooled(side: int, device: torch.device) -> Tensor:
    """Gradients of a step through adaptive pooling, twice over."""
    torch.manual_seed(0)
    values = torch.rand(4, 8, side, side, device=device, requires_grad=True)
    slope = torch.rand(4, 8, 6, 6, device=device)
    DeterministicPool((6, 6))(values).backward(slope)
    assert values.grad is not None
    return values.grad


def pooling(setting: Setting) -> str:
    for side in ODD_SIDES:
        first, again = (pooled(side, setting.device) for _ in range(2))
        expected = pooled_on_cpu(side, setting.device)
        if not torch.equal(first, again):
            return f"no: at {side} two gradients differ"
        if not torch.allclose(first.cpu(), expected, atol=1e-6):
            return f"no: at {side} it differs from the CPU's"
    return "yes"


def pooled_on_cpu(side: int, device: torch.device) -> Tensor:
    """The same gradient by torch's own pooling, of the numbers that the device draws."""
    torch.manual_seed(0)
    values = torch.rand(4, 8, side, side, device=device).cpu().requires_grad_()
    slope = torch.rand(4, 8, 6, 6, device=device).cpu()
    nn.AdaptiveAvgPool2d(6)(values).backward(slope)
    assert values.grad is not None
    return values.grad


def odd_side(setting: Setting, architecture: Architecture) -> str:
    """A network whose pooling has work to do trains, and twice the same."""
    return twice(replace(setting, image_size=97), architecture)


def smooth_loss(setting: Setting, precision: str, device: torch.device) -> float:
    """The first epoch's loss of a network of three layers without a kink."""
    torch.manual_seed(5)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2), nn.Tanh(), nn.Conv2d(8, 16, 3, stride=2), nn.Tanh(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(16, 2),
    )  # fmt: skip
    config = setting.config(epochs=1, batch_size=8, learning_rate=1e-2, schedule="constant")
    recipe = Recipe(config, 11, 0.7, precision, device)
    labels = torch.arange(40, device=device) % 2
    data = Examples(pack(32, 40, device), torch.arange(40).numpy(), labels)
    run = start_run(model, recipe)
    train(run, data, None, recipe, lambda _: None, lambda *_: None)
    return run.history[0].loss


def parity(setting: Setting, precisions: tuple[str, str], other: torch.device) -> str:
    """Loss in one arithmetic against that in another, or on another device."""
    one = smooth_loss(setting, precisions[0], setting.device)
    two = smooth_loss(setting, precisions[1], other)
    off = abs(one / two - 1)
    answer = "yes" if off <= BF16_BOUND else "no"
    return f"{answer}: {off:.4f} apart, allowed {BF16_BOUND:.4f}"


def memory(setting: Setting, architecture: Architecture, precision: str) -> str:
    """The most memory of a job's process against its estimate [GB]."""
    config = setting.config(architectures=(architecture,))
    free_memory(setting.device)
    job = Job(setting, architecture, graphs=True, precision=precision)
    for _ in range(recording_epochs(job.bounds)):
        job.train_epoch()
    synchronise(setting.device)
    if setting.device.type == "cuda":
        free, whole = torch.cuda.mem_get_info()
        used, estimate = whole - free, job_gpu_bytes(config, setting.images)
    else:
        from thyro_core.training.device import peak_memory

        used, estimate = peak_memory(), job_cpu_bytes(config)
    network.cache_clear()
    answer = "yes" if used <= estimate else "NO"
    return f"{answer}: {used / 1e9:.2f} of {estimate / 1e9:.2f} GB, {used / estimate:.2f}"


def questions(setting: Setting) -> Iterator[tuple[str, Callable[[], str]]]:
    """All questions, those first on which the others rest."""
    small = replace(setting, images=min(setting.images, 118))
    first, *others = setting.architectures
    drops = others[0]
    device, cpu = setting.device, torch.device("cpu")
    for name in (first, drops):
        yield f"twice the same bits, {name}", lambda name=name: twice(small, name)
        yield f"replayed and eager, {name}", lambda name=name: both_ways(small, name)
    yield f"resumed and undisturbed, {drops}", lambda: resumed(small, drops)
    yield "a pack on the device and on the host", lambda: device_pack(small, first)
    yield "pooling at odd sides, twice and as a CPU", lambda: pooling(setting)
    yield "bf16 and fp32", lambda: parity(setting, ("bf16", "fp32"), device)
    yield "fp32 here and on a CPU", lambda: parity(setting, ("fp32", "fp32"), cpu)
    if not setting.is_tiny:
        yield "AlexNet at 97 pixels, twice", lambda: odd_side(small, "alexnet")
    for name in setting.architectures:
        yield f"memory within its estimate, {name}", lambda name=name: memory(small, name, "auto")
    if not setting.is_tiny:
        for name in others[2:]:
            yield f"replayed and eager, {name}", lambda name=name: both_ways(small, name)
        for name in setting.architectures:
            yield f"memory in fp32, {name}", lambda name=name: memory(small, name, "fp32")


def main(words: list[str]) -> None:
    setting = setting_of(words)
    prepare(setting)
    print(header("question", "answer"))
    for question, answer in questions(setting):
        try:
            text = answer()
        except Exception as error:  # noqa: BLE001 - the answer to one question; others are asked
            text = f"**raised {type(error).__name__}**: {str(error).splitlines()[0][:200]}"
        print(row(question, text.replace("|", "/")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
