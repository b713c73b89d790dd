"""What a shell is told when somebody presses tab."""

import os
import subprocess
import sys

import pytest

from tests.support.places import REPOSITORY


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("thyro stud", {"study", "studies"}),
        ("thyro study images --conf", {"--config"}),
        ("thyro study images --set epo", {"epochs="}),
    ],
)
def test_a_shell_is_told_what_goes_on_from_here(line: str, expected: set[str]) -> None:
    n_words = len(line.split())
    done = subprocess.run(
        [sys.executable, "-c", "from flows.cli.main import main; main()"],
        cwd=REPOSITORY,
        env=os.environ | {
            "_THYRO_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(n_words - 1),
        },
        capture_output=True,
        text=True,
    )  # fmt: skip
    assert set(done.stdout.split()) == expected, done.stderr
