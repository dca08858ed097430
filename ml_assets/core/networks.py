"""Where the nodes of a network stand: degree, betweenness and PageRank, by igraph."""

from collections.abc import Sequence

import pyarrow as pa

_SCHEMA = pa.schema({"node": pa.string(), "degree": pa.int64(), "betweenness": pa.float64(), "pagerank": pa.float64()})


def centralities(edges: pa.Table) -> pa.Table:
    """Return one row per node of a directed network, sorted by node.

    Args:
        edges: ``from_node``, ``to_node`` (text) and ``weight`` (how much passes, above 0), one row per directed edge.

    Returns:
        ``node``; ``degree`` (edges in and out); ``betweenness`` (share of shortest paths of other pairs through it,
        0 to 1; Freeman 1977, where an edge is as long as 1 / weight); ``pagerank`` (sums to 1; Brin and Page 1998,
        damping 0.85, transitions in proportion to weight). Rounded to 12 decimals, so that machines agree.

    >>> there_and_back = pa.table({"from_node": ["JFK", "BOS"], "to_node": ["BOS", "JFK"], "weight": [3, 3]})
    >>> centralities(there_and_back).to_pylist()[0]
    {'node': 'BOS', 'degree': 2, 'betweenness': 0.0, 'pagerank': 0.5}
    """
    import igraph

    pairs = list(zip(_text(edges, "from_node"), _text(edges, "to_node"), strict=True))
    nodes = sorted({node for pair in pairs for node in pair})
    if not nodes:
        return _SCHEMA.empty_table()
    place = {node: index for index, node in enumerate(nodes)}
    graph = igraph.Graph(n=len(nodes), edges=[(place[a], place[b]) for a, b in pairs], directed=True)
    weights = [float(weight) for weight in edges.column("weight").to_pylist()]
    n_other_pairs = max((len(nodes) - 1) * (len(nodes) - 2), 1)
    between = graph.betweenness(weights=[1 / weight for weight in weights])
    return pa.table(
        {
            "node": nodes,
            "degree": pa.array(graph.degree(), pa.int64()),
            "betweenness": [round(value / n_other_pairs, 12) for value in between],
            "pagerank": [round(value, 12) for value in graph.pagerank(weights=weights)],
        }
    )


def _text(edges: pa.Table, column: str) -> Sequence[str]:
    return edges.column(column).to_pylist()
