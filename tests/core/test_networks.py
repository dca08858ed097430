from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from ml_assets.core.networks import centralities

Edge = tuple[str, str, float]

DIAMOND: list[Edge] = [("a", "b", 1), ("a", "c", 1), ("b", "d", 1), ("c", "d", 1)]


def table_of(edges: list[Edge]) -> pa.Table:
    return pa.table(
        {
            "from_node": pa.array([edge[0] for edge in edges], pa.string()),
            "to_node": pa.array([edge[1] for edge in edges], pa.string()),
            "weight": pa.array([edge[2] for edge in edges], pa.float64()),
        }
    )


def found(edges: list[Edge]) -> dict[str, Mapping[str, float]]:
    return {row["node"]: row for row in centralities(table_of(edges)).to_pylist()}


def pagerank(edges: list[Edge], *, damping: float = 0.85) -> dict[str, float]:
    """Brin and Page's fixed point by plain iteration; a node that leads nowhere leads everywhere alike."""
    nodes = sorted({node for edge in edges for node in edge[:2]})
    n = len(nodes)
    moves = np.zeros((n, n))
    for start, end, weight in edges:
        moves[nodes.index(start), nodes.index(end)] += weight
    leaving = moves.sum(axis=1, keepdims=True)
    moves = np.where(leaving > 0, moves / np.where(leaving > 0, leaving, 1), 1 / n)
    rank = np.full(n, 1 / n)
    for _ in range(300):
        rank = (1 - damping) / n + damping * rank @ moves
    return dict(zip(nodes, rank.tolist(), strict=True))


def test_degree_counts_the_edges_in_and_out():
    degrees = {node: row["degree"] for node, row in found([*DIAMOND, ("d", "a", 1)]).items()}
    assert degrees == {"a": 3, "b": 2, "c": 2, "d": 3}


def test_two_paths_of_one_length_share_the_pair_between_them():
    # Of the 3 * 2 pairs of others, b and c are each on one of the two shortest paths from a to d.
    betweenness = {node: row["betweenness"] for node, row in found(DIAMOND).items()}
    assert betweenness == {"a": 0, "b": round(0.5 / 6, 12), "c": round(0.5 / 6, 12), "d": 0}


def test_a_busy_route_is_a_short_one():
    # a to c directly is 1/1 long, by way of b 1/4 + 1/4: b is between one of the two pairs of others.
    assert found([("a", "c", 1), ("a", "b", 4), ("b", "c", 4)])["b"]["betweenness"] == 0.5
    # With 1/1 + 1/1 by way of b the direct route is the shorter one.
    assert found([("a", "c", 1), ("a", "b", 1), ("b", "c", 1)])["b"]["betweenness"] == 0


def test_an_edge_leads_one_way():
    # a -> b -> c, but nothing leads back: one pair of two.
    assert found([("a", "b", 1), ("b", "c", 1)])["b"]["betweenness"] == 0.5
    assert found([("a", "b", 1), ("b", "c", 1), ("c", "b", 1), ("b", "a", 1)])["b"]["betweenness"] == 1


@pytest.mark.parametrize(
    "edges",
    [DIAMOND, [("a", "b", 3), ("a", "c", 1), ("b", "a", 2), ("c", "a", 5), ("c", "d", 7), ("d", "b", 0.5)]],
)
def test_pagerank_is_the_fixed_point_of_its_definition_and_sums_to_one(edges: list[Edge]):
    ranks = {node: row["pagerank"] for node, row in found(edges).items()}
    assert ranks == pytest.approx(pagerank(edges), abs=1e-9)
    assert sum(ranks.values()) == pytest.approx(1, abs=1e-9)


def test_the_order_of_the_edges_changes_nothing():
    assert centralities(table_of(DIAMOND)).equals(centralities(table_of(DIAMOND[::-1])))


def test_nodes_come_sorted_one_row_each():
    assert centralities(table_of([("z", "a", 1), ("m", "z", 1)]))["node"].to_pylist() == ["a", "m", "z"]


def test_a_network_of_two_has_nobody_between():
    assert {row["betweenness"] for row in found([("a", "b", 9)]).values()} == {0}


def test_no_edges_are_no_rows_of_the_same_columns():
    nothing = centralities(table_of([]))
    assert nothing.num_rows == 0
    assert nothing.schema == centralities(table_of(DIAMOND)).schema
