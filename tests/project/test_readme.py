"""The README's commands are run as they stand, and its tables are the registry's."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.support.places import REPOSITORY
from thyro_core.config import StudyConfig
from thyro_core.settings import Settings
from thyro_core.tables import describe, schemas

TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The lines under each `<!-- run -->`."""
    blocks = re.findall(r"<!-- run -->\n((?:    .+\n)+)", TEXT)
    return [line.strip() for block in blocks for line in block.splitlines()]


def test_every_command_runs_in_the_order_given(tmp_path: Path) -> None:
    found = commands()
    assert {line.split()[1] for line in found if line.startswith("thyro")} == {
        "phantom", "ingest", "study", "verify", "doctor", "query", "tables",
    }  # fmt: skip
    binaries = Path(sys.executable).parent
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("THYRO_")
    } | {"HOME": str(tmp_path), "PATH": f"{binaries}:{os.environ['PATH']}", "NO_COLOR": "1"}
    for line in found:
        done = subprocess.run(
            shlex.split(line),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    (notebook,) = re.findall(r"```python\n(.+?)```", TEXT, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", notebook],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "'auc': " in done.stdout


def test_every_indented_line_is_marked_as_run_or_is_a_make_target() -> None:
    indented = [line.strip() for line in re.findall(r"^    \S.*$", TEXT, re.MULTILINE)]
    rest = [line for line in indented if line not in commands()]
    assert all(line.startswith("make ") for line in rest), rest
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    for line in rest:
        assert re.search(rf"^{line.split()[1]}:", makefile, re.MULTILINE), line


def test_the_table_of_tables_is_the_registrys() -> None:
    rows = [
        (f"`{t.name}`", ", ".join(t.hive), describe._row_of(t)) for t in schemas.TABLES.values()
    ]
    head = ["| table | keys | a row is |", "|---|---|---|"]
    assert "\n".join([*head, *map(describe._markdown_row, rows)]) in TEXT


def test_every_config_key_and_setting_is_named() -> None:
    for name in StudyConfig.model_fields:
        assert f"`{name}`" in TEXT, name
    for name in Settings.model_fields:
        assert f"THYRO_{name.upper()}" in TEXT, name


def test_it_is_short_and_says_what_it_is_not() -> None:
    assert len(TEXT.splitlines()) < 200
    assert "not a medical device" in TEXT
