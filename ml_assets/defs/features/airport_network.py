"""The airport network: centralities by igraph, a feature view that SQL cannot compute; declared in the yml beside."""

from datetime import date, timedelta
from time import perf_counter

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.calendar import DAILY, DAILY_FRESHNESS, ONE_RUN, day_starts_at, days_of
from ml_assets.core.networks import centralities
from ml_assets.core.point_in_time.dialects import Sql
from ml_assets.core.ports import Warehouse

TABLE = "features.feat_airport_network"
WINDOW = timedelta(days=28)

ARRIVALS = "select origin, dest, known_at from features.feat_arrivals where {of_days}"


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
    days, started = days_of(context), perf_counter()
    arrivals = warehouse.query(
        ARRIVALS.format(of_days=Sql(dialect=warehouse.dialect).of_days()),
        # A flight can arrive a day or two after the one it was planned for.
        {"first_day": days.first - WINDOW - timedelta(days=2), "last_day": days.last - timedelta(days=1)},
    )
    networks = {day: network_of(arrivals, day) for day in days.dates}
    for day, network in networks.items():
        context.add_asset_metadata({"dagster/partition_row_count": network.num_rows}, partition_key=day.isoformat())
    rows = pa.concat_tables(networks.values())
    warehouse.replace_days({TABLE: rows}, days)
    seconds_per_day = (perf_counter() - started) / len(days.dates)
    return dg.MaterializeResult(metadata={"n_rows": rows.num_rows, "seconds_per_day": seconds_per_day})


def network_of(arrivals: pa.Table, day: date) -> pa.Table:
    """Return the rows of one local day, from the flights known to have arrived in the 28 days before it started.

    ``arrivals`` has ``origin``, ``dest`` and ``known_at``, the moment of arrival, one row per flight.
    """
    starts_at = day_starts_at(day)
    in_window = (pc.field("known_at") < starts_at) & (pc.field("known_at") >= day_starts_at(day - WINDOW))
    flown = arrivals.filter(in_window).group_by(["origin", "dest"]).aggregate([([], "count_all")])
    flown = flown.sort_by([("origin", "ascending"), ("dest", "ascending")])
    network = centralities(
        flown.select(["origin", "dest", "count_all"]).rename_columns(["from_node", "to_node", "weight"])
    )
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
