from __future__ import annotations

import sys
from pathlib import Path

# Tests share `small_artifacts`; in pytest's importlib mode its folder is not on the path.
sys.path.append(str(Path(__file__).parents[1] / "runtime"))
sys.path.append(str(Path(__file__).parent))
