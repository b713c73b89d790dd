"""Images a second of 1, 2, 4, 8 and 10 jobs that share the GPU, with MPS (`--mps`) and without it.

As many processes as there are jobs, each with a network of its own, as the jobs of a study are; all
measure over the same seconds, and their rates are added. The processes are started once.
"""

import argparse
import json
import sys
from collections.abc import Mapping

import gpu_mps
from gpu_pool import Pool, WorkerError, workers
from gpu_setting import Setting, parser_of, setting_of
from laps import header, row

FIGURE = "figure: "


def rates(pool: Pool, count: int, architecture: str, *, graphs: bool) -> tuple[float, str]:
    """Images a second of so many jobs at once; and a note."""
    ready = pool.ask({"do": "prepare", "architecture": architecture, "graphs": graphs}, count)
    found = pool.ask({"do": "measure"}, count)
    note = "" if not graphs or all(answer["replayed"] for answer in ready) else " (not replayed)"
    return sum(answer["rate"] for answer in found), note


def show(setting: Setting, pool: Pool, *, is_mps: bool) -> None:
    first, *others = setting.architectures
    print(header("network", "jobs at once", "way", "images/s, all together", "of one job's"))
    cases = [(first, count, True) for count in setting.jobs]
    cases += [(first, count, False) for count in (1, setting.jobs[-1])]
    cases += [(name, setting.jobs[-1], True) for name in others]
    single: dict[tuple[str, bool], float] = {}
    for name, count, graphs in cases:
        rate, note = rates(pool, count, name, graphs=graphs)
        if count == 1:
            single[name, graphs] = rate
        times = f"{rate / single[name, graphs]:.2f}" if (name, graphs) in single else ""
        way = ("graphs" if graphs else "eager") + note
        print(row(name, count, way, f"{rate:.0f}", times), flush=True)
        if name == first and graphs:
            figure = {"way": "jobs", "count": count, "mps": is_mps, "rate": rate}
            print(FIGURE + json.dumps(figure), flush=True)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(parents=[parser_of()], allow_abbrev=False)
    parser.add_argument("--mps", action="store_true")
    options = parser.parse_args(words)
    setting = setting_of(words)
    more: Mapping[str, str] = {}
    if options.mps:
        if setting.device.type == "cpu":
            print("MPS is for GPUs: not run on a CPU.")
            return 0
        try:
            more = gpu_mps.start(options.mps_folder)
        except gpu_mps.MpsError as error:
            print(f"**{error}**")
            return 0
    common = [f"--device={options.device}", *(["--tiny"] if options.tiny else [])]
    try:
        with workers(setting.jobs[-1], common, more) as pool:
            show(setting, pool, is_mps=options.mps)
    except WorkerError as error:
        print(f"\n**{error}**")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
