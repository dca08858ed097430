"""Measure the daily drift report beside its peers: ``python -m benchmarks.drift_report [--peers-python PYTHON]``.

The report is what production computes: statistics of every column where it lies, distances, judgement. Its rows are
the 336,776 flights of 2013, 26 columns (8 categories, 18 numbers), once as training and once as the day; the larger
size has ten of each. The *scan* hands every value of the day over to Python as Arrow; the *least scan* looks at every
value and keeps one number of each column. Training is read when a model is trained, not when a day is reported: what
that costs (``reference``) is measured by itself, while the peers read both sets of rows each time. We read a DuckDB
table, the peers Parquet of the same rows, each in a process of its own; CPU seconds are user and system of the work
without imports, the memory is the process's largest.

``--wide`` adds 3 million rows of 1,000 columns in Parquet (evidently issue 1526), with DuckDB kept to 1 GB.
Exits with 1 where a limit is missed.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import msgspec
import numpy as np
import pyarrow as pa

from benchmarks.scale_up import package_data
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.column_statistics import column_statistics
from ml_assets.core.drift import drift_of
from ml_assets.core.feature_views import Feature
from ml_assets.core.ports import DayRange
from ml_assets.core.reference import Reference, build_reference

DAY = date(2013, 7, 1)
ONE_DAY = DayRange(first=DAY, last=DAY)
MOST_OF_SCAN, LEAST_BELOW_EVIDENTLY, MOST_MB, MOST_MB_WIDE = 2.5, 30.0, 500, 2048
REPEATS = 3
WIDE_COLUMNS, WIDE_ROWS_A_FILE = 1000, 100_000
CATEGORIES = ("carrier", "origin", "dest", "manufacturer", "plane_model", "plane_type", "tailnum", "route")
_FLIGHTS = """
    select make_date(f.year, f.month, f.day) as flown_on, f.carrier, f.origin, f.dest, p.manufacturer,
        p.model as plane_model, p.type as plane_type, f.tailnum, f.carrier || f.dest as route, f.flight,
        f.distance, f.sched_dep_time, f.sched_arr_time, f.hour as sched_hour, f.minute as sched_minute,
        w.temp, w.dewp, w.humid, w.wind_dir, w.wind_speed, w.wind_gust, w.precip, w.pressure, w.visib, p.seats,
        p.year as plane_year, f.dep_delay
    from read_csv('{folder}/flights.csv', nullstr = 'NA') f
    left join read_csv('{data}/weather.csv', nullstr = 'NA') w on f.origin = w.origin and f.time_hour = w.time_hour
    left join read_csv('{data}/planes.csv', nullstr = 'NA') p on f.tailnum = p.tailnum
    order by flown_on, f.time_hour, f.carrier, f.flight
"""


def write_inputs(folder: Path, n_copies: int) -> None:
    """Write the day's rows as a DuckDB table and as Parquet, and the reference, unless they are there."""
    done = folder / "complete"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = package_data()
    zipfile.ZipFile(data / "flights.csv.zip").extractall(folder)
    with duckdb.connect(str(folder / "warehouse.duckdb")) as connection:
        connection.execute("SET TimeZone = 'UTC'; SET memory_limit = '1GB'; CREATE SCHEMA examples")
        connection.execute(f"CREATE TABLE flights AS {_FLIGHTS.format(folder=folder, data=data)}")
        numbers = [
            name
            for name, *_ in connection.execute("DESCRIBE flights").fetchall()
            if name not in ("flown_on", *CATEGORIES)
        ]
        as_double = ", ".join(f"CAST({name} AS DOUBLE) AS {name}" for name in numbers)
        columns = f"flown_on, {', '.join(CATEGORIES)}, {as_double}"
        connection.execute(
            f"CREATE TABLE examples.flights AS SELECT DATE '{DAY}' AS partition_on, {columns} "
            f"FROM flights, range({n_copies})"
        )
        connection.execute("DROP TABLE flights")
        connection.execute(f"COPY (SELECT * EXCLUDE (flown_on) FROM examples.flights) TO '{folder}/day.parquet'")
        rows = connection.sql("SELECT * FROM examples.flights").limit(336_776).to_arrow_table()
    (folder / "reference.json").write_bytes(msgspec.json.encode(reference_of(rows)))
    done.touch()


def reference_of(rows: pa.Table) -> Reference:
    """Return the reference of training rows, as a training builds it."""
    names = [name for name in rows.column_names if name not in ("partition_on", "flown_on")]
    kinds = {name: "categorical" if name in CATEGORIES else "numeric" for name in names}
    inputs = [Feature(name=name, kind=kind, view="bench") for name, kind in kinds.items()]
    predictions = np.linspace(0.0, 1.0, rows.num_rows)
    by_day = rows.drop_columns("partition_on").rename_columns({"flown_on": "partition_on"})
    return build_reference(by_day, inputs, predictions)


def write_wide(folder: Path, n_rows: int) -> None:
    """Write files of a thousand columns, a hundred thousand rows each, unless they are there."""
    done = folder / f"complete_{n_rows}"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"x{i:04}" for i in range(WIDE_COLUMNS)]
    with duckdb.connect() as connection:
        connection.execute(
            "SET memory_limit = '2GB'; SET enable_progress_bar = false; "
            "SET preserve_insertion_order = false; SELECT setseed(0.5)"
        )
        columns = ", ".join(f"CAST(floor(1000 * random() * random()) AS DOUBLE) AS {name}" for name in names)
        for part in range(max(1, n_rows // WIDE_ROWS_A_FILE)):
            connection.execute(
                f"COPY (SELECT DATE '{DAY}' AS partition_on, {columns} FROM range({WIDE_ROWS_A_FILE})) "
                f"TO '{folder}/{part:03}.parquet' (ROW_GROUP_SIZE 20000)"
            )
        training = connection.sql(f"SELECT * FROM '{folder}/000.parquet' LIMIT 20000").to_arrow_table()
    inputs = [Feature(name=name, kind="numeric", view="bench") for name in names]
    reference = build_reference(training, inputs, np.linspace(0.0, 1.0, training.num_rows))
    (folder / "reference.json").write_bytes(msgspec.json.encode(reference))
    done.touch()


def _report(warehouse: DuckDBWarehouse, folder: Path, table: str) -> str:
    reference = msgspec.json.decode((folder / "reference.json").read_bytes(), type=Reference)
    found = dict(column_statistics(warehouse, table, reference.features, ONE_DAY)[DAY])
    # The prediction is one number of another table; here a feature's counts stand in for it.
    of_prediction = next(b for b in reference.features if len(b.shares) == len(reference.prediction.shares))
    found["prediction"] = found[of_prediction.feature]
    rows = drift_of(reference, found, use_case="bench", model_version="v1", day=DAY)
    return f"{rows.num_rows} columns of {found['prediction'].n_rows} rows"


def report(folder: Path) -> str:
    """The product: counts in the warehouse, distances, judgement."""
    return _report(DuckDBWarehouse(folder / "warehouse.duckdb"), folder, "examples.flights")


class ParquetWarehouse(DuckDBWarehouse):
    """A warehouse whose one table is Parquet files, with a limit on memory."""

    def __init__(self, folder: Path, memory: str) -> None:
        super().__init__(None)
        self.query(f"SELECT 1 AS n FROM (SELECT 1) WHERE '{folder}' <> ''")
        connection = self._open()
        connection.execute(f"SET memory_limit = '{memory}'; SET temp_directory = '{folder / 'spill'}'")
        connection.execute(f"CREATE SCHEMA examples; CREATE VIEW examples.wide AS FROM '{folder}/*.parquet'")


def report_wide(folder: Path) -> str:
    """The product on Parquet files of a thousand columns."""
    return _report(ParquetWarehouse(folder, "1GB"), folder, "examples.wide")


def scan_wide(folder: Path) -> str:
    """Look at every value of the wide files: the least scan."""
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '1GB'")
        cells = ", ".join(f"sum(x{i:04})" for i in range(WIDE_COLUMNS))
        found = connection.execute(f"SELECT {cells} FROM '{folder}/*.parquet'").fetchone()
        return f"{len(found or ())} sums"


def scan(folder: Path) -> str:
    """Hand every value over as Arrow, batch by batch."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        reader = connection.sql("SELECT * EXCLUDE (flown_on) FROM examples.flights").to_arrow_reader(100_000)
        return f"{sum(batch.num_rows for batch in reader)} rows"


def least_scan(folder: Path) -> str:
    """Look at every value and keep one number of each column."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        names = [
            name for name, kind, *_ in connection.execute("DESCRIBE examples.flights").fetchall() if kind != "DATE"
        ]
        cells = ", ".join(f"max({name})" if name in CATEGORIES else f"sum({name})" for name in names)
        return f"{len(connection.execute(f'SELECT {cells} FROM examples.flights').fetchone() or ())} numbers"


def reference(folder: Path) -> str:
    """Build the reference from the training rows: once for each model."""
    with duckdb.connect(str(folder / "warehouse.duckdb"), read_only=True) as connection:
        rows = connection.sql("SELECT * FROM examples.flights").to_arrow_table()
    return f"{len(reference_of(rows).features)} features of {rows.num_rows} rows"


def with_scipy(folder: Path) -> str:
    """Exact KS for numbers and chi-square for categories, by scipy, training against the day."""
    import pyarrow.parquet as pq
    from scipy.stats import chi2_contingency, ks_2samp

    table = pq.read_table(folder / "day.parquet").drop_columns("partition_on")
    n = 0
    for name in table.column_names:
        if name in CATEGORIES:
            counts = np.array([row["counts"] for row in table[name].drop_null().value_counts().to_pylist()])
            chi2_contingency(np.stack([counts, counts]))
        else:
            values = table[name].drop_null().to_numpy()
            ks_2samp(values, values, method="asymp")
        n += 1
    return f"{n} columns of {table.num_rows} rows"


WAYS: dict[str, Callable[[Path], str]] = {
    "scan": scan,
    "least_scan": least_scan,
    "report": report,
    "reference": reference,
    "scipy": with_scipy,
    "scan_wide": scan_wide,
    "report_wide": report_wide,
}


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_megabytes() -> float:
    # Not ru_maxrss: it survives exec, so that a child is told of the memory its parent had.
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _measure_here(way: str, folder: Path) -> None:
    import scipy.special

    assert scipy.special.fdtrc  # imports are no part of the work
    before = _cpu_seconds()
    told = WAYS[way](folder)
    cpu = _cpu_seconds() - before
    print(json.dumps({"cpu": cpu, "mb": _peak_megabytes(), "told": told}))


def _measure(python: str, arguments: list[str], repeats: int, name: str) -> dict[str, float]:
    """Run one way in processes of its own and print the least CPU seconds and the most memory."""
    found: list[dict[str, float]] = []
    for _ in range(repeats):
        command = [python, "-W", "ignore", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr[-3000:]}")
        found.append(json.loads(done.stdout.splitlines()[-1]))
    best = {"cpu": min(run["cpu"] for run in found), "mb": max(run["mb"] for run in found)}
    print(f"  {name:<22} {best['cpu']:9.3f} CPU s {best['mb']:8.0f} MB   {found[-1]['told']}", flush=True)
    return best


def _ours(way: str, folder: Path, repeats: int = REPEATS) -> dict[str, float]:
    arguments = ["-m", "benchmarks.drift_report", "--way", way, "--folder", str(folder)]
    return _measure(sys.executable, arguments, repeats, way)


def _held(words: str, value: float, limit: float, *, is_least: bool = False) -> bool:
    is_held = value >= limit if is_least else value <= limit
    print(f"  {words}: {value:.2f} (limit {limit:g}) {'held' if is_held else 'MISSED'}", flush=True)
    return is_held


def _of_size(folder: Path, n_copies: int, peers_python: str | None) -> bool:
    write_inputs(folder, n_copies)
    print(
        f"{336_776 * n_copies:,} x {336_776 * n_copies:,} rows, 26 columns; load {os.getloadavg()[0]:.1f}", flush=True
    )
    is_large = n_copies > 1
    found = {way: _ours(way, folder) for way in ("scan", "least_scan", "report", "reference", "scipy")}
    of_scan = found["report"]["cpu"] / found["scan"]["cpu"]
    held = [_held("report of one scan", of_scan, MOST_OF_SCAN)]
    print(f"  report of the least scan: {found['report']['cpu'] / found['least_scan']['cpu']:.2f}", flush=True)
    held.append(_held("report, MB", found["report"]["mb"], MOST_MB))
    if peers_python and not is_large:
        script = str(Path(__file__).with_name("drift_report_peers.py"))
        for peer in ("nannyml", "evidently"):
            found[peer] = _measure(peers_python, [script, peer, str(folder / "day.parquet")], 1, peer)
        times = found["evidently"]["cpu"] / found["report"]["cpu"]
        held.append(_held("Evidently of report", times, LEAST_BELOW_EVIDENTLY, is_least=True))
    return all(held)


def _wide(folder: Path, n_rows: int) -> bool:
    write_wide(folder, n_rows)
    print(f"{n_rows:,} rows x {WIDE_COLUMNS:,} columns in Parquet; load {os.getloadavg()[0]:.1f}", flush=True)
    _ours("scan_wide", folder, 1)
    return _held("report_wide, MB", _ours("report_wide", folder, 1)["mb"], MOST_MB_WIDE)


def main() -> int:
    """Write the inputs, measure, print; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", help="of an environment with evidently and nannyml")
    parser.add_argument("--folder", type=Path, help="keep the inputs here, and use them if they are there")
    parser.add_argument("--quick", action="store_true", help="336 thousand rows and, with --wide, 100 thousand only")
    parser.add_argument("--wide", action="store_true", help="also 3 million rows of 1,000 columns: 4 GB of disk")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        _measure_here(arguments.way, arguments.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        held = [
            _of_size(folder / f"copies_{n}", n, arguments.peers_python) for n in ((1,) if arguments.quick else (1, 10))
        ]
        if arguments.wide:
            held.append(_wide(folder / "wide", WIDE_ROWS_A_FILE if arguments.quick else 3_000_000))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
