"""The losses of the recipe that can be held against a formula."""

from __future__ import annotations

import runpy
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

CONTRAST = runpy.run_path(str(Path(__file__).parents[1] / "training/tiny/contrast.py"))


def test_one_positive_is_cross_entropy() -> None:
    logits, right = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 3, 6, 1])
    positive = torch.nn.functional.one_hot(right, 7).bool()
    torch.testing.assert_close(CONTRAST["any_of"](logits, positive), cross_entropy(logits, right))


def test_several_positives_count_together_and_rows_without_one_do_not() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [9.0, 1.0, 2.0, 3.0]])
    positive = torch.tensor([[True, True, False, False], [False] * 4])
    torch.testing.assert_close(CONTRAST["any_of"](logits, positive), torch.tensor(2.0).log())
