"""How long the light commands take to answer, in processes of their own: best of `--repeat` runs. To reach: 0.4 s.

    python benchmarks/startup.py

Wall-clock seconds are what a person waits; processor seconds are what the command needs beside any other work.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

from _smoke import finish, parse

COMMANDS = (["--version"], ["--help"], ["search", "--help"], ["models"])


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one command."""
    code = "from looktwice.cli.main import main; main()"
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, processor


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    asked = parse(parser, argv, repeat=1)
    repeat = asked.repeat
    rows = []
    print(f"{'command':<28}{'wall s':>10}{'processor s':>13}")
    for arguments in COMMANDS:
        if repeat > 1:
            seconds(arguments)  # files into the cache
        wall, processor = (min(column) for column in zip(*(seconds(arguments) for _ in range(repeat)), strict=True))
        command = " ".join(["looktwice", *arguments])
        rows.append({"command": command, "wall_s": wall, "processor_s": processor})
        print(f"{command:<28}{wall:>10.3f}{processor:>13.3f}")
    finish("startup", asked, {"rows": rows, "repeat": repeat, "python": sys.version.split()[0]})


if __name__ == "__main__":
    main()
