"""The notebook that comes along: every cell runs, in order, in an empty folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import REPOSITORY

NOTEBOOK = REPOSITORY / "deployments" / "quickstart.ipynb"


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text())
    return ["".join(each["source"]) for each in notebook["cells"] if each["cell_type"] == "code"]


def as_program(cells: list[str]) -> str:
    """The cells as a script: lines with `!` are commands of the shell, as in a notebook."""
    lines = ["import shlex, subprocess", "import matplotlib", "matplotlib.use('agg')"]
    for line in "\n".join(cells).splitlines():
        if line.startswith("!"):
            lines.append(f"subprocess.run(shlex.split({line[1:]!r}), check=True)")
        else:
            lines.append(line)
    lines.append("plt.savefig('map.png')")
    lines.append("print('ROC', len(predictions), 'MAP', cam.shape, axes.get_title())")
    return "\n".join(lines)


def test_it_is_kept_without_outputs_and_says_what_it_is_for() -> None:
    notebook = json.loads(NOTEBOOK.read_text())
    code = [each for each in notebook["cells"] if each["cell_type"] == "code"]
    assert all(each["outputs"] == [] and each["execution_count"] is None for each in code)
    assert "not a medical device" in "".join(notebook["cells"][0]["source"])


@pytest.mark.slow
def test_every_cell_runs_in_an_empty_folder(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name[:5] != "THYRO"}
    environment |= {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
    }
    done = subprocess.run(
        [sys.executable, "-c", as_program(cells())],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "ROC 22 MAP (2, 2) P(malignant) 0." in done.stdout
    assert (tmp_path / "map.png").stat().st_size > 1000
