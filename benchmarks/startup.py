"""How long the light commands take to answer, in processes of their own: best of `--repeat` runs. To reach: 0.4 s.

    python benchmarks/startup.py

Wall-clock seconds are what a person waits; processor seconds are what the command needs beside any other work.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

COMMANDS = (["--version"], ["--help"], ["search", "--help"], ["models"])


def seconds(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of one command."""
    code = "from looktwice.cli.main import main; main()"
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begun, processor


def main() -> None:
    """Print a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=7)
    repeat = parser.parse_args().repeat
    rows = []
    print(f"{'command':<28}{'wall s':>10}{'processor s':>13}")
    for arguments in COMMANDS:
        seconds(arguments)  # files into the cache
        wall, processor = (min(column) for column in zip(*(seconds(arguments) for _ in range(repeat)), strict=True))
        command = " ".join(["looktwice", *arguments])
        rows.append({"command": command, "wall_s": wall, "processor_s": processor})
        print(f"{command:<28}{wall:>10.3f}{processor:>13.3f}")
    print(json.dumps({"rows": rows, "repeat": repeat, "python": sys.version.split()[0]}))


if __name__ == "__main__":
    main()
