"""Grouping against the plainest possible algorithm, clustering against FAISS-free checks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from looktwice.codecs import parse_codec
from looktwice.codecs.clustering import Clustering
from looktwice.codecs.grouping import Grouping, greedy_groups
from looktwice.codecs.members import reduce_members
from looktwice.types import Block, VisualTokens


def groups_by_hand(similarity: np.ndarray, size: int) -> np.ndarray:
    """The paper's algorithm in the most obvious way, O(T³)."""
    free, groups = list(range(len(similarity))), []
    while len(free) > 1:
        i, j = max(((i, j) for i in free for j in free if i != j), key=lambda p: (similarity[p], -p[0], -p[1]))
        others = sorted((o for o in free if o not in (i, j)), key=lambda o: (-(similarity[i, o] + similarity[j, o]), o))
        groups.append([i, j, *others[: size - 2]])
        free = [o for o in free if o not in groups[-1]]
    result = np.full(len(similarity), len(groups))
    for number, group in enumerate(groups):
        result[group] = number
    return result


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(2, 5), st.integers(0, 2**31))
def test_grouping_is_the_greedy_algorithm(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, 6)).astype(np.float32)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    similarity = (unit @ unit.T + (unit @ unit.T).T) / 2
    assert greedy_groups(similarity.copy(), size).tolist() == groups_by_hand(similarity, size).tolist()


def test_tokens_that_all_repel_one_another_are_not_paired_with_themselves() -> None:
    corners = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])  # a tetrahedron: every cosine is −1/3
    assert sorted(np.bincount(Grouping(2).assign(corners)).tolist()) == [2, 2]


@pytest.mark.parametrize(("tokens", "sizes"), [(1, [1]), (4, [4]), (5, [4, 1]), (9, [4, 4, 1]), (11, [4, 4, 3])])
def test_sizes_of_groups(tokens: int, sizes: list[int]) -> None:
    torch.manual_seed(1)
    assert np.bincount(Grouping(4).assign(torch.randn(tokens, 8))).tolist() == sizes
    assert Grouping(4).most(tokens) == len(sizes)


def test_zero_vectors_do_no_harm() -> None:
    rows = torch.zeros(6, 4)
    rows[0, 0] = 1
    assert np.bincount(Grouping(3).assign(rows)).tolist() == [3, 3]


def test_reductions_on_numbers_a_person_can_check() -> None:
    values = torch.tensor([[[0.0, 0], [1, 10], [8, 2], [5, 5]], [[1.0, 1], [2, 2], [3, 3], [9, 9]]])
    label = np.array([0, 0, 0, 1])
    mean = reduce_members(values, label, 2, "mean")
    assert mean.tolist() == [[[3, 4], [5, 5]], [[2, 2], [9, 9]]]
    assert reduce_members(values, label, 2, "nearest").tolist() == [[[0, 0], [5, 5]], [[1, 1], [9, 9]]]
    assert reduce_members(values, label, 2, "median").tolist() == [[[1, 2], [5, 5]], [[2, 2], [9, 9]]]


def test_the_median_of_an_even_number_is_the_lower_one() -> None:
    values = torch.tensor([[[1.0], [2], [3], [4]]])
    assert reduce_members(values, np.zeros(4, np.int64), 1, "median").tolist() == [[[2]]]


def test_clusters_find_clouds_and_repeat_themselves() -> None:
    torch.manual_seed(0)
    cloud = torch.arange(5).repeat_interleave(8)
    rows = 100 * torch.eye(5)[cloud] + torch.randn(40, 5)
    first, again = (Clustering(5).assign(rows) for _ in range(2))
    assert first.tolist() == again.tolist()
    assert len({*zip(cloud.tolist(), first.tolist(), strict=True)}) == 5


@pytest.mark.parametrize("clusters", [6, 7, 70])
def test_an_image_with_no_more_tokens_than_clusters_is_left_alone(clusters: int) -> None:
    tokens = VisualTokens(torch.randn(6, 4), None, (Block("global", 2, 3),))
    assert parse_codec(f"cluster{clusters}").round_trip(tokens).features.equal(tokens.features)


def test_a_blank_image_is_one_cluster() -> None:
    tokens = VisualTokens(torch.ones(12, 4), torch.ones(1, 12, 4), (Block("global", 3, 4),))
    codec = parse_codec("cluster5")
    assert len(codec.encode(tokens)) < codec.image_bytes(tokens.layout, 4, levels=1, itemsize=4)
    result = codec.round_trip(tokens)
    assert result.features.equal(tokens.features) and result.levels.equal(tokens.levels)


@pytest.mark.parametrize("spec", ["group4", "group4:nearest", "cluster3:median", "cluster3:nearest"])
def test_every_member_becomes_the_groups_one_vector(spec: str) -> None:
    torch.manual_seed(3)
    tokens = VisualTokens(torch.randn(12, 5), torch.randn(2, 12, 5), (Block("global", 3, 4),))
    result, step = parse_codec(spec).round_trip(tokens), parse_codec(spec).groups
    label = step.assign(tokens.features)
    for group in set(label.tolist()):
        members = torch.from_numpy(np.flatnonzero(label == group))
        assert len(result.features[members].unique(dim=0)) == 1
        if "nearest" in spec:  # one member, the same in the levels
            chosen = [i for i in members.tolist() if tokens.features[i].equal(result.features[i])]
            assert len(chosen) == 1
            assert tokens.levels[:, chosen[0]].equal(result.levels[:, chosen[0]])
