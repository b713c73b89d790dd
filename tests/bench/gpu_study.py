"""All training of a default study on one GPU, by the way of sharing it that was the fastest.

    python tests/bench/gpu_study.py [--way=jobs --count=10 [--mps]]

Ten splits of 357 noise images and four networks, 30 epochs, as jobs in so many processes, or
interleaved or stacked in one. The time is that of the training steps with their recording, and
beside it that of copying the networks; starting processes and testing networks are not in it. A row
comes when a network is done, so that what ran out of time can still be read.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator

import gpu_mps
from gpu_pool import WorkerError, workers
from gpu_setting import Setting, free_memory, parser_of, prepare, setting_of, synchronise
from laps import header, row


def by_jobs(setting: Setting, options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    """Network by network, and the time until its last job is done, from the one before."""
    common = [f"--device={options.device}", *(["--tiny"] if options.tiny else [])]
    more = gpu_mps.start(options.mps_folder) if options.mps else {}
    requests = [
        {"do": "train", "architecture": name, "split": split, "graphs": True}
        for name in setting.architectures
        for split in range(setting.splits)
    ]
    with workers(min(options.count, len(requests)), common, more) as pool:
        started = time.perf_counter()
        done: Counter[str] = Counter()
        for answer in pool.work_off(requests):
            done[answer["architecture"]] += 1
            if done[answer["architecture"]] == setting.splits:
                yield answer["architecture"], time.perf_counter() - started
                started = time.perf_counter()


def by_one_process(setting: Setting, way: str) -> Iterator[tuple[str, float]]:
    """The same, all splits of a network at once."""
    from gpu_together import WAYS

    prepare(setting)
    for name in setting.architectures:
        started = time.perf_counter()
        together = WAYS[way](setting, name, setting.splits)
        for _ in range(setting.epochs):
            together.train_epoch()
        synchronise(setting.device)
        yield name, time.perf_counter() - started
        del together
        free_memory(setting.device)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(parents=[parser_of()], allow_abbrev=False)
    parser.add_argument("--way", choices=("jobs", "interleaved", "stacked"), default="jobs")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--mps", action="store_true")
    options = parser.parse_args(words)
    setting = setting_of(words)
    shared = f"{options.count} jobs at once" if options.way == "jobs" else options.way
    print(f"\nThe way: {shared}{', MPS' if options.mps else ''}.\n")
    print(header("network", "splits", "epochs", "seconds", "images/s"))
    images = setting.splits * setting.epochs * setting.images
    seconds = []
    jobs = options.way == "jobs"
    found = by_jobs(setting, options) if jobs else by_one_process(setting, options.way)
    try:
        for name, took in found:
            shown = (name, setting.splits, setting.epochs, f"{took:.1f}", f"{images / took:.0f}")
            print(row(*shown), flush=True)
            seconds.append(took)
    except (WorkerError, gpu_mps.MpsError) as error:
        print(f"\n**{error}**")
        return 1
    rate = images * len(seconds) / sum(seconds)
    print(row("all", setting.splits, setting.epochs, f"{sum(seconds):.1f}", f"{rate:.0f}"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
