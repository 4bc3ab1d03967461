from __future__ import annotations

from itertools import pairwise

from netopt.graph.spread import spread


def test_a_property_spreads_through_groups_in_both_directions() -> None:
    groups = [("a", "b"), ("c", "b"), ("c", "d", "e"), ("f", "g")]
    assert spread(["e"], groups) == {"a", "b", "c", "d", "e"}
    assert spread(["x", "g"], groups) == {"x", "f", "g"}
    assert spread([], groups) == set()


def test_a_long_chain_is_walked_once() -> None:
    names = [f"v{number}" for number in range(20_000)]
    groups = list(pairwise(names))
    assert spread([names[-1]], groups) == set(names)
