"""The plan of a collection follows from sizes, rates and prices."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from looktwice.cli.main import app
from looktwice.errors import UsageError
from looktwice.estimate.plan import Machines, Prices, code_bytes, plan, searcher_bytes


def test_bytes_hours_and_money_of_a_million() -> None:
    prices = Prices(1.0, 1.0, 1.0, 10.0, 1.0)
    made = plan(
        1_000_000, dim=512, token_bytes=1000, tower_hours=2.0, machines=Machines(2, 4, 500.0, 1e6), prices=prices
    )
    assert made.bytes["vectors"] == 1_024_000_000 and made.bytes["tokens"] == 1_000_000_000
    assert made.bytes["total"] == sum(size for name, size in made.bytes.items() if name != "total")
    assert made.hours["encoder"] == pytest.approx(1e6 / 500 / 2 / 3600) and made.hours["tokens"] == 1.0
    assert made.money["storage_month"] == pytest.approx(made.bytes["total"] / 1e9, abs=0.01)
    assert made.money["machines"] == pytest.approx(
        (made.hours["encoder"] + 1) * 2 * 10 + made.hours["index"] * 4, abs=0.01
    )
    assert made.requests["images_read"] == 2_000_000 and made.money["images_read"] == 2000


def test_a_searcher_keeps_vectors_of_a_small_table_and_codes_of_a_large_one() -> None:
    assert searcher_bytes(10_000, 512) == 10_000 * (4 * 512 + 200)
    assert searcher_bytes(10**8, 512) == 10**8 * code_bytes(10**8, 512) + 5000 * 512 * 4
    assert [plan(n).hours["index"] for n in (10**6, 10**8)] == sorted(plan(n).hours["index"] for n in (10**6, 10**8))
    with pytest.raises(UsageError):
        plan(0)


def test_estimate_prints_it() -> None:
    command = ["estimate", "--mllm", "tiny-vl", "--items", "1e9", "--codec", "pq8", "--price", "gigabyte_month=0.01"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and "bytes in the bucket" in done.stdout and "memory of a searcher" in done.stdout
    record = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert record["plan"]["items"] == 10**9 and record["plan"]["prices"]["gigabyte_month"] == 0.01
    wrong = CliRunner().invoke(app, [*command, "--price", "gigabyte_mont=1"])
    assert wrong.exit_code == 2 and "did you mean gigabyte_month" in wrong.output
