"""Print, one a line, what the GPU check needs and this Python lacks. Imports nothing but Python's own."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

NEEDS = {
    "torch": "2.6",
    "transformers": "5.17",
    "tokenizers": "0.21",
    "safetensors": "0.5",
    "huggingface-hub": "1.0",
    "numpy": "2.0",
    "pillow": "11.3",
    "jinja2": "3.1.6",
    "pytest": "8.3",
    "pytest-timeout": "2.3",
    "hypothesis": "6.120",
}


def numbers(text: str) -> tuple[int, ...]:
    """The leading numbers of a version.

    >>> numbers("2.13.0+cu130") >= numbers("2.6")
    True
    """
    found = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def missing() -> list[str]:
    """Requirements that are not met."""
    return [f"{name}>={least}" for name, least in NEEDS.items() if not _met(name, least)]


def _met(name: str, least: str) -> bool:
    try:
        return numbers(version(name)) >= numbers(least)
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    print("\n".join(missing()))
