"""The GPU's tests use the functions of the GPU check, so that both measure the same."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
