"""The join by Feast with its DuckDB store, for ``benchmarks.point_in_time --feast-python``.

Runs in an environment with feast[duckdb] and without this project. Prints CPU seconds of the join and peak memory.
"""

# Feast lives in an environment of its own, so the project's type checker cannot see it.
# pyright: reportMissingImports=false

import argparse
import json
import os
import resource
import tempfile
from datetime import timedelta
from pathlib import Path

VIEWS = {
    "origin_weather": (["origin"], 3, ["temp", "dewp", "humid", "wind_speed", "precip", "visib", "pressure"]),
    "origin_delays": (["origin"], 24, ["n_departures", "mean_departure_delay_minutes", "late_share"]),
    "carrier_delays": (
        ["carrier", "origin"],
        24,
        ["n_carrier_departures", "mean_carrier_delay_minutes", "carrier_late_share"],
    ),
}


def main() -> None:
    """Join the decisions of a folder with the three views, Parquet to Parquet."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--folder", type=Path, required=True)
    arguments.add_argument("--out", type=Path, required=True)
    given = arguments.parse_args()
    os.environ["FEAST_USAGE"] = "False"
    import pandas as pd
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
    from feast.data_format import ParquetFormat
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    with tempfile.TemporaryDirectory() as repository:
        store = FeatureStore(
            config=RepoConfig(
                project="benchmark",
                registry=f"{repository}/registry.db",
                provider="local",
                offline_store={"type": "duckdb"},
                online_store=None,
                entity_key_serialization_version=3,
            )
        )
        entities = {
            name: Entity(name=name, join_keys=[name], value_type=ValueType.STRING) for name in ("origin", "carrier")
        }
        views = [
            FeatureView(
                name=name,
                entities=[entities[key] for key in keys],
                ttl=timedelta(hours=hours),
                schema=[Field(name=f, dtype=Int64 if f.startswith("n_") else Float64) for f in features],
                source=FileSource(
                    name=name,
                    path=f"{given.folder / name}/*.parquet",
                    timestamp_field="known_at",
                    file_format=ParquetFormat(),
                ),
                online=False,
            )
            for name, (keys, hours, features) in VIEWS.items()
        ]
        store.apply([*entities.values(), *views])
        before = resource.getrusage(resource.RUSAGE_SELF)
        decisions = pd.read_parquet(given.folder / "decisions").rename(columns={"decided_at": "event_timestamp"})
        asked = [f"{name}:{feature}" for name, (_, _, features) in VIEWS.items() for feature in features]
        joined = store.get_historical_features(entity_df=decisions, features=asked).to_df()
        joined.rename(columns={"event_timestamp": "decided_at"}).to_parquet(given.out / "all.parquet", index=False)
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu_s": seconds, "rss_mb": used.ru_maxrss / 1024}))


if __name__ == "__main__":
    main()
