"""Average two checkpoints of one model: what a further training learnt, with less forgotten (Wortsman et al. 2022).

python training/tiny/average.py --before BEFORE.pt --after RUN/last.pt --share 0.5 --out RUN_AVERAGED/last.pt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--after", type=Path, required=True)
    parser.add_argument("--share", type=float, default=0.5, help="of the checkpoint after")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    before, after = (torch.load(path, map_location="cpu", weights_only=True) for path in (args.before, args.after))
    mixed = {name: torch.lerp(before["net"][name], value, args.share) for name, value in after["net"].items()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"net": mixed, "step": after["step"]}, args.out)


if __name__ == "__main__":
    main()
