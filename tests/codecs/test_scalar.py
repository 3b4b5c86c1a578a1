"""Rotated scalar quantisation: the error that theory gives, a rotation that every machine makes alike."""

from __future__ import annotations

import pytest
import torch

from looktwice.codecs import parse_codec
from looktwice.codecs.scalar import RotatedScalar, _levels, _rotation
from looktwice.errors import Mismatch, UsageError

LLOYD_MAX = {1: 0.3634, 2: 0.1175, 3: 0.03454, 4: 0.009497, 5: 0.002499}
"""Least square error of so many bits on a standard normal distribution (Max, IRE Trans. Inf. Theory 1960)."""


def coded(rows: torch.Tensor, bits: int) -> torch.Tensor:
    quantiser = RotatedScalar(bits)
    codes = quantiser.encode(rows, None, 0)
    assert codes.shape == (len(rows), quantiser.row_bytes(rows.shape[1], 4))
    return quantiser.decode(codes, torch.float32, torch.float32, None, 0)


@pytest.mark.parametrize("bits", LLOYD_MAX)
def test_the_error_is_that_of_a_normal_distribution_whatever_the_tokens(bits: int) -> None:
    """One number of each token is a hundred times as large as the others: what the rotation is for."""
    torch.manual_seed(bits)
    rows = torch.randn(400, 192)
    rows[torch.arange(400), torch.arange(400) % 192] *= 100
    error = (coded(rows, bits) - rows).square().sum() / rows.square().sum()
    assert float(error) == pytest.approx(LLOYD_MAX[bits], rel=0.05)


def test_the_rotation_is_orthogonal_and_fixed() -> None:
    turn = _rotation(64)
    torch.testing.assert_close(turn @ turn.T, torch.eye(64), rtol=0, atol=1e-5)
    assert [round(float(x), 5) for x in turn[0, :3]] == [round(float(x), 5) for x in _fresh()[0, :3]]


def _fresh() -> torch.Tensor:
    """Return the rotation by Gram and Schmidt, from the same draws: what a machine with another LAPACK must get."""
    import numpy as np

    columns: list[np.ndarray] = []
    for column in np.random.RandomState(64).standard_normal((64, 64)).T:
        for _ in range(2):
            column = column - sum((float(one @ column) * one for one in columns), np.zeros(64))
        columns.append(column / np.linalg.norm(column))
    return torch.from_numpy(np.stack(columns, 1)).float()


def test_levels_rise_and_are_symmetric() -> None:
    for bits in range(1, 7):
        levels = _levels(bits)
        assert len(levels) == 2**bits and bool((levels.diff() > 0).all())
        torch.testing.assert_close(levels, -levels.flip(0), rtol=0, atol=1e-4)


def test_a_zero_token_stays_zero() -> None:
    assert coded(torch.zeros(2, 16), 3).abs().max() == 0


def test_widths_and_bits_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Mismatch, match="width 8 divides"):
        RotatedScalar(4).row_bytes(30, 4)
    with pytest.raises(UsageError, match="from 1 to 6"):
        parse_codec("rsq7")
