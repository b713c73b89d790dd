"""Where the repository and its neighbours lie, for tests that read files of theirs."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "golden"
SHARED = Path(os.environ.get("THYRO_SHARED", REPOSITORY.parent / "shared"))
"""Real images and weights, which not everybody has; tests that need them skip without."""
