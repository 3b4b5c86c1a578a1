"""What every benchmark has: `--smoke`, every path in seconds; and a last line that is one JSON object."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None, **small: Any) -> argparse.Namespace:
    """Read the options. With --smoke those in `small` have these values, unless they are given."""
    parser.add_argument("--smoke", action="store_true", help="run every path in seconds; the figures mean nothing")
    if parser.parse_known_args(argv)[0].smoke:
        parser.set_defaults(**small)
    return parser.parse_args(argv)


def finish(name: str, options: argparse.Namespace, record: Mapping[str, Any]) -> None:
    """Print the last line: what was measured, by which benchmark, and whether it was a smoke run."""
    line = {"benchmark": name, "smoke": options.smoke, **record}
    print(json.dumps(line, ensure_ascii=False, allow_nan=False))
