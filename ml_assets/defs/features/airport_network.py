"""The airport network: centralities by igraph, a feature view that SQL cannot compute; declared in the yml beside."""

from datetime import date, timedelta

import dagster as dg
import pyarrow as pa

from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, day_starts_at, days_of
from ml_assets.core.networks import centralities
from ml_assets.core.ports import Warehouse

TABLE = "features.feat_airport_network"
WINDOW = timedelta(days=28)

# Only flights that have arrived count, and only those known to have arrived before the day starts.
ROUTES = """
    select origin as from_node, dest as to_node, count(*) as weight
    from features.feat_arrivals
    where known_at < {p}starts_at and known_at >= {p}window_starts_at
      and partition_on between {p}first_day and {p}last_day
    group by origin, dest
    order by origin, dest
"""


@dg.asset(
    key=["features", "feat_airport_network"],
    group_name="features",
    deps=[
        dg.AssetDep(
            ["features", "feat_arrivals"],
            partition_mapping=dg.TimeWindowPartitionMapping(
                start_offset=-WINDOW.days - 2, end_offset=-1, allow_nonexistent_upstream_partitions=True
            ),
        )
    ],
    partitions_def=DAILY,
    backfill_policy=ONE_RUN,
    freshness_policy=DAILY_FRESHNESS,
    pool="warehouse",
    owners=["team:data-engineering"],
    kinds={"python", "igraph"},
    tags={"cadence": "daily", "layer": "features"},
    metadata={"dagster/table_name": TABLE},
)
def feat_airport_network(
    context: dg.AssetExecutionContext, warehouse: dg.ResourceParam[Warehouse]
) -> dg.MaterializeResult:
    """One row per destination and local day: its place in the network of the 28 days before that day started."""
    days = days_of(context)
    rows = pa.concat_tables([network_of(warehouse, day) for day in days.dates])
    warehouse.replace_days({TABLE: rows}, days)
    return dg.MaterializeResult(metadata={"n_rows": rows.num_rows})


def network_of(warehouse: Warehouse, day: date) -> pa.Table:
    """Return the rows of one local day, from the flights known to have arrived before it started."""
    starts_at, window_starts_at = day_starts_at(day), day_starts_at(day - WINDOW)
    routes = warehouse.query(
        ROUTES.format(p="$" if warehouse.dialect == "duckdb" else "@"),
        {
            "starts_at": starts_at,
            "window_starts_at": window_starts_at,
            # A flight can arrive on the day after the one it was planned for, or the one after that.
            "first_day": day - WINDOW - timedelta(days=2),
            "last_day": day - timedelta(days=1),
        },
    )
    network = centralities(routes)
    return pa.table(
        {
            "partition_on": pa.array([day] * network.num_rows, pa.date32()),
            "dest": network.column("node"),
            "known_at": pa.array([starts_at] * network.num_rows, pa.timestamp("us", tz="UTC")),
            "network_degree": network.column("degree"),
            "network_betweenness": network.column("betweenness"),
            "network_pagerank": network.column("pagerank"),
        }
    )
