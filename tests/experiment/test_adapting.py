"""Adapting vectors on labelled queries: what queries and their items differ in is found, and chance claims nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from looktwice.encode.mixing import unit
from looktwice.errors import UsageError
from looktwice.experiment.adapting import AskedVectors, adapt, learnt

DIM, NUISANCE = 16, 3


def asked(objects: int, nuisance: float, *, judged: bool = False, seed: int = 0) -> list[AskedVectors]:
    """One query per object, two relevant items of it; the first NUISANCE numbers are noise of this strength."""
    rng = np.random.default_rng(seed)
    things = rng.normal(size=(objects, DIM))
    things[:, :NUISANCE] = 0

    def seen(rows):
        noise = np.zeros((len(rows), DIM))
        noise[:, :NUISANCE] = nuisance * rng.normal(size=(len(rows), NUISANCE))
        return unit((things[rows] + noise + 0.1 * rng.normal(size=(len(rows), DIM))).astype(np.float32))

    rows = np.repeat(np.arange(objects), 2)
    ids, items, queries = [f"i{n}" for n in range(len(rows))], seen(rows), seen(np.arange(objects))
    made = []
    for number, vector in enumerate(queries):
        grades = {name: int(rows[i] == number) for i, name in enumerate(ids) if judged or rows[i] == number}
        made.append(AskedVectors(f"q{number}", vector, ids, len(ids), items, grades, judged))
    return made


@pytest.mark.parametrize("judged", [False, True])
def test_a_nuisance_is_shrunk(judged: bool) -> None:
    found = adapt(asked(30, 6.0, judged=judged), "mAP@100")
    gain = found.gain
    assert gain.claimed and gain.interval.low > 0.05
    assert gain.after - gain.before == pytest.approx(gain.interval.mean)
    strength = np.linalg.norm(found.weight, axis=0)
    assert strength[:NUISANCE].max() < 0.75 * strength[NUISANCE:].min()
    assert (gain.queries, gain.groups) == (30, 30)


def test_chance_is_not_claimed() -> None:
    """Vectors without anything in common: a map learnt on some queries cannot help others."""
    claims = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        some = asked(12, 0.0, seed=seed)
        items = unit(rng.normal(size=(24, DIM)).astype(np.float32))
        noise = [AskedVectors(o.query, o.vector, o.ids, o.best, items, o.grades, False) for o in some]
        claims.append(adapt(noise, "mAP@100").gain.claimed)
    assert sum(claims) <= 1


def test_the_map_is_the_inverse_root_of_the_differences() -> None:
    some = asked(20, 3.0)
    weight = learnt(some).astype(np.float64)
    apart = np.concatenate([one.differences for one in some]).astype(np.float64)
    spread = apart.T @ apart / len(apart)
    wanted = np.linalg.inv(spread / (np.trace(spread) / DIM) + 3 * np.eye(DIM))
    np.testing.assert_allclose(weight @ weight, wanted, atol=1e-5)


def test_few_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="4 groups"):
        adapt(asked(4, 3.0), "mAP@100")


def test_relevant_items_that_the_first_look_missed_are_not_ranked() -> None:
    one = replace(asked(6, 0.0)[0], best=0)
    assert one.value(None, "mAP@100") == 0.0 and len(one.differences) == 2
