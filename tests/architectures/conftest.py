from __future__ import annotations

import sys
from pathlib import Path

# The tests share a table; in pytest's importlib mode their folder is not on the path.
sys.path.insert(0, str(Path(__file__).parent))
