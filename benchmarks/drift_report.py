"""Measure the daily drift report beside its peers: ``python -m benchmarks.drift_report [--peers-python PYTHON]``.

Training are the 336,776 flights of 2013 with 26 features (8 categories, 18 numbers) and a prediction, the day is as
many of them drawn with replacement; the larger size has ten times as many of each. The *report* is what production does
for a day whose model is loaded: it opens the warehouse, counts every feature and the prediction where they lie,
computes distances and judgement, and writes the rows. Training is read when a model is trained, not when a day is
reported: what that costs is measured by itself (``reference``). The peers read both sets each time, from Parquet.

*One scan* is a single statement over the day's 26 features, sent through the same warehouse, opening included, which
returns count, minimum and maximum of every column and the sum of every number: what one asks to know a table at
all. Beside it stand the least that looks at every value (``least_scan``: one sum, or the largest text, of each column)
and handing all values to Python (``arrow_scan``).

Everything runs in a process of its own. CPU seconds are user and system of the work without imports, the median of the
rounds; the memory is the largest resident of the whole process. A peer that needs more CPU seconds than ``--most-cpu``
or more address space than ``--most-gb`` is ended, which is said.

``--wide`` adds 3 million rows of 1,000 columns (evidently issue 1526), as a table of the warehouse: 5 GB of disk, whole
numbers below 1,000 so that they compress. The peers get 100 thousand rows: 3 million are 24 GB in pandas, twice.
Exits with 1 where a limit is missed.
"""

import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from pathlib import Path

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.scale_up import package_data
from ml_assets.backends.duckdb_warehouse import DuckDBWarehouse
from ml_assets.core.drift import drift_of_days
from ml_assets.core.feature_views import Feature
from ml_assets.core.monitored import DRIFT
from ml_assets.core.ports import DayRange
from ml_assets.core.reference import Reference, build_reference
from ml_assets.use_cases.arrival_delay import USE_CASE

DAY = date(2013, 7, 1)
ONE_DAY = DayRange(first=DAY, last=DAY)
MOST_OF_SCAN, LEAST_BELOW_EVIDENTLY, MOST_MB = 2.5, 30.0, 500
# Judgement: DuckDB keeps to 1 GB, and a thousand references and histograms are as much again.
MOST_MB_WIDE = 2000
ROUNDS, ROUNDS_OF_LARGE = 15, 3
N_FLIGHTS = 336_776
WIDE_COLUMNS, WIDE_ROWS, WIDE_ROWS_OF_PEERS, WIDE_ROWS_AT_ONCE = 1000, 3_000_000, 100_000, 100_000
CATEGORIES = ("carrier", "origin", "dest", "manufacturer", "plane_model", "plane_type", "tailnum", "route")
PEERS = ("nannyml", "evidently")
_WAREHOUSE, _REFERENCE = "warehouse.duckdb", "reference.json"
_EXAMPLES, _PREDICTIONS = USE_CASE.examples_table, USE_CASE.predictions_table
_FLIGHTS = """
    select make_date(f.year, f.month, f.day) as partition_on, f.carrier, f.origin, f.dest, p.manufacturer,
        p.model as plane_model, p.type as plane_type, f.tailnum, f.carrier || f.dest as route, {numbers},
        1 / (1 + exp(1.5 - coalesce(f.dep_delay, 0) / 20)) as prediction
    from read_csv('{folder}/flights.csv', nullstr = 'NA') f
    left join read_csv('{data}/weather.csv', nullstr = 'NA') w on f.origin = w.origin and f.time_hour = w.time_hour
    left join read_csv('{data}/planes.csv', nullstr = 'NA') p on f.tailnum = p.tailnum
    order by partition_on, f.time_hour, f.carrier, f.flight
"""
_NUMBERS = {
    "f": ["flight", "distance", "sched_dep_time", "sched_arr_time", "hour", "minute", "dep_delay"],
    "w": ["temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib"],
    "p": ["seats", "year"],
}
NUMBERS = tuple("plane_year" if name == "year" else name for names in _NUMBERS.values() for name in names)
FEATURES = [
    *(Feature(name=name, kind="categorical", view="flights") for name in CATEGORIES),
    *(Feature(name=name, kind="numeric", view="flights") for name in NUMBERS),
]


def write_inputs(folder: Path, n_copies: int) -> None:
    """Write training and day as Parquet, the day as tables of a warehouse, and the reference, unless they are there."""
    done = folder / "complete"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = package_data()
    zipfile.ZipFile(data / "flights.csv.zip").extractall(folder)
    numbers = ", ".join(
        f"cast({of}.{name} as double) as {'plane_year' if name == 'year' else name}"
        for of, names in _NUMBERS.items()
        for name in names
    )
    training, day = folder / "training.parquet", folder / "day.parquet"
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit = '2GB'; SET threads = 1; SET enable_progress_bar = false")
        connection.execute(f"CREATE TABLE flights AS {_FLIGHTS.format(folder=folder, data=data, numbers=numbers)}")
        connection.execute(
            f"COPY (SELECT flights.* FROM flights, range({n_copies}) ORDER BY partition_on) TO '{training}'"
        )
        # Each copy in the order of time, as rows land.
        n_rows = N_FLIGHTS * n_copies
        drawn = f"SELECT hash(n) % {N_FLIGHTS} AS place, n // {N_FLIGHTS} AS copy FROM range({n_rows}) AS r(n)"
        connection.execute(
            f"COPY (SELECT DATE '{DAY}' AS partition_on, flights.* EXCLUDE (partition_on) "
            f"FROM ({drawn}) JOIN flights ON place = flights.rowid ORDER BY copy, place) TO '{day}'"
        )
    with _new_warehouse(folder) as connection:
        columns = ", ".join(feature.name for feature in FEATURES)
        connection.execute(f"CREATE TABLE {_EXAMPLES} AS SELECT partition_on, {columns} FROM '{day}'")
        connection.execute(f"CREATE TABLE {_PREDICTIONS} AS SELECT partition_on, prediction FROM '{day}'")
    _write_reference(folder, FEATURES)
    done.touch()


def write_wide(folder: Path, n_rows: int) -> None:
    """Write a day of a thousand columns as tables of a warehouse, with training and a smaller day as Parquet."""
    done = folder / "complete"
    if done.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"x{i:04}" for i in range(WIDE_COLUMNS)]
    drawn = ", ".join(f"floor(1000 * random() * random()) AS {name}" for name in names)
    # Of a thousand columns, row groups of the usual size would take a gigabyte each to write.
    with _new_warehouse(folder, row_group=20_480) as connection:
        for start in range(0, n_rows, WIDE_ROWS_AT_ONCE):
            many = f"SELECT DATE '{DAY}' AS partition_on, {drawn} FROM range({WIDE_ROWS_AT_ONCE})"
            one = f"SELECT DATE '{DAY}' AS partition_on, random() AS prediction FROM range({WIDE_ROWS_AT_ONCE})"
            for table, rows in ((_EXAMPLES, many), (_PREDICTIONS, one)):
                connection.execute(f"INSERT INTO {table} {rows}" if start else f"CREATE TABLE {table} AS {rows}")
        for file in ("training", "day"):
            connection.execute(
                f"COPY (SELECT DATE '{DAY}' AS partition_on, {drawn}, random() AS prediction "
                f"FROM range({WIDE_ROWS_OF_PEERS})) TO '{folder / file}.parquet' (ROW_GROUP_SIZE 20480)"
            )
    _write_reference(folder, [Feature(name=name, kind="numeric", view="wide") for name in names])
    done.touch()


def reference_of(folder: Path, features: Sequence[Feature]) -> Reference:
    """Build the reference of the training rows, as a training does."""
    rows = pq.read_table(folder / "training.parquet")
    return build_reference(rows, features, rows["prediction"].to_numpy())


@contextmanager
def _new_warehouse(folder: Path, *, row_group: int = 122_880) -> Generator[duckdb.DuckDBPyConnection]:
    """Make the warehouse's file and its schemas, anew where an attempt was cut short."""
    path = folder / _WAREHOUSE
    path.unlink(missing_ok=True)
    with duckdb.connect() as connection:
        connection.execute(
            "SET memory_limit = '2GB'; SET threads = 1; SET enable_progress_bar = false; SELECT setseed(0.5)"
        )
        connection.execute(f"ATTACH '{path}' AS warehouse (ROW_GROUP_SIZE {row_group}); USE warehouse")
        connection.execute("CREATE SCHEMA examples; CREATE SCHEMA predictions")
        yield connection
        connection.execute("USE memory; DETACH warehouse")


def _write_reference(folder: Path, features: Sequence[Feature]) -> None:
    (folder / _REFERENCE).write_bytes(msgspec.json.encode(reference_of(folder, features)))


def report(folder: Path) -> str:
    """The product: counts in the warehouse, distances, judgement, the rows written."""
    warehouse = DuckDBWarehouse(folder / _WAREHOUSE)
    reference = msgspec.json.decode((folder / _REFERENCE).read_bytes(), type=Reference)
    with warehouse.session():
        rows = drift_of_days(warehouse, USE_CASE, reference, ONE_DAY, model_version="v1")
        warehouse.replace_days({DRIFT: rows}, ONE_DAY, use_case=USE_CASE.name)
    n_rows, n_drifted = rows["n_rows"][0].as_py(), pc.sum(rows["is_drifted"]).as_py()
    return f"{rows.num_rows} columns of {n_rows:,} rows, {n_drifted} drifted"


def scan(folder: Path) -> str:
    """One statement: count, minimum and maximum of every column, and the sum of every number."""
    return _aggregated(
        folder, numbers="count({0}), min({0}), max({0}), sum({0})", texts="count({0}), min({0}), max({0})"
    )


def least_scan(folder: Path) -> str:
    """One statement that looks at every value and keeps one of each column."""
    return _aggregated(folder, numbers="sum({0})", texts="max({0})")


def arrow_scan(folder: Path) -> str:
    """Hand every value over as Arrow, batch by batch."""
    with duckdb.connect(str(folder / _WAREHOUSE), read_only=True) as connection:
        connection.execute("SET threads = 1")
        reader = connection.sql(f"SELECT * FROM {_EXAMPLES}").to_arrow_reader(100_000)
        return f"{sum(batch.num_rows for batch in reader):,} rows"


def reference(folder: Path) -> str:
    """Build the reference from the training rows: once for each model."""
    found = reference_of(folder, FEATURES)
    return f"{len(found.features)} features of {found.n_rows:,} rows"


def with_scipy(folder: Path) -> str:
    """Exact KS for numbers and chi-square for categories, by scipy, training against the day."""
    from scipy.stats import chi2_contingency, ks_2samp

    training, day = (pq.read_table(folder / f"{name}.parquet") for name in ("training", "day"))
    names = [name for name in day.column_names if name != "partition_on"]
    for name in names:
        both = [rows[name].drop_null() for rows in (training, day)]
        if pa.types.is_string(day.schema.field(name).type):
            counted = [
                dict(zip(*(c.field(i).to_pylist() for i in (0, 1)), strict=True))
                for c in (v.value_counts() for v in both)
            ]
            values = sorted(set().union(*counted))
            chi2_contingency([[of.get(value, 0) for value in values] for of in counted])
        else:
            ks_2samp(*(values.to_numpy() for values in both), method="asymp")
    return f"{len(names)} columns of {day.num_rows:,} rows"


def _aggregated(folder: Path, *, numbers: str, texts: str) -> str:
    warehouse = DuckDBWarehouse(folder / _WAREHOUSE)
    with warehouse.session():
        types = warehouse.columns(_EXAMPLES) or {}
        cells = ", ".join(
            (texts if kind == "VARCHAR" else numbers).format(name) for name, kind in types.items() if kind != "DATE"
        )
        found = warehouse.query(f"SELECT count(*), {cells} FROM {_EXAMPLES} WHERE partition_on = $day", {"day": DAY})
    return f"{found.num_columns:,} aggregates"


WAYS: dict[str, Callable[[Path], str]] = {
    "scan": scan,
    "least_scan": least_scan,
    "arrow_scan": arrow_scan,
    "report": report,
    "reference": reference,
    "scipy": with_scipy,
}


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one way took: CPU seconds, the median of its rounds, and the largest memory."""

    cpu: float
    mb: float


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_megabytes() -> float:
    # Not ru_maxrss: it survives exec, so that a child is told of the memory its parent had.
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def _measure_here(way: str, folder: Path) -> None:
    # Imports are no part of the work; pandas is pyarrow's when it makes a table of rows, and Dagster's.
    for module in ("pandas", "scipy.special", "scipy.stats"):
        import_module(module)
    before = _cpu_seconds()
    told = WAYS[way](folder)
    cpu = _cpu_seconds() - before
    print(json.dumps({"cpu": cpu, "mb": _peak_megabytes(), "told": told}))


def _command_of(way: str, folder: Path, peers_python: str | None) -> Sequence[str]:
    if way in WAYS:
        return [sys.executable, "-W", "ignore", "-m", "benchmarks.drift_report", "--way", way, "--folder", str(folder)]
    return [str(peers_python), "-W", "ignore", str(Path(__file__).with_name("drift_report_peers.py")), way, str(folder)]


def _measure(ways: Mapping[str, int], folder: Path, arguments: argparse.Namespace) -> Mapping[str, Cost]:
    """Run each way as often as it says, by turns, in processes of their own; print and return what they cost."""
    runs: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    failed: dict[str, str] = {}
    for turn in range(max(ways.values())):
        for way in (way for way, n in ways.items() if turn < n and way not in failed):
            found = _run(way, folder, arguments)
            if isinstance(found, str):
                failed[way] = found
            else:
                runs[way].append(found)
    for way in ways:
        if way in failed:
            print(f"  {way:<12} did not finish: {failed[way]}", flush=True)
    costs = {
        way: Cost(cpu=statistics.median(run["cpu"] for run in found), mb=max(run["mb"] for run in found))
        for way, found in runs.items()
        if found
    }
    for way, cost in costs.items():
        spread = f"({min(r['cpu'] for r in runs[way]):.3f} to {max(r['cpu'] for r in runs[way]):.3f})"
        print(f"  {way:<12} {cost.cpu:9.3f} CPU s {spread:<20} {cost.mb:8.0f} MB   {runs[way][-1]['told']}", flush=True)
    return costs


def _run(way: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float] | str:
    """Return what one process found; of a peer that fails, in one line how. Ours must not fail."""
    is_peer = way not in WAYS

    def bound() -> None:
        # Of CPU seconds, not of the clock: others may hold the cores.
        resource.setrlimit(resource.RLIMIT_CPU, (arguments.most_cpu, arguments.most_cpu))
        resource.setrlimit(resource.RLIMIT_AS, (arguments.most_gb * 2**30,) * 2)

    command = _command_of(way, folder, arguments.peers_python)
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=bound if is_peer else None,
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    if not done.returncode:
        return json.loads(done.stdout.splitlines()[-1])
    if not is_peer:
        raise RuntimeError(f"{command} failed with {done.returncode}:\n{done.stderr[-3000:]}")
    if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
        return f"ended after {arguments.most_cpu} CPU s, or by the machine for want of memory"
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:200]


def _held(words: str, value: float, limit: float, *, is_least: bool = False) -> bool:
    is_held = value >= limit if is_least else value <= limit
    print(f"  {words}: {value:.2f} (limit {limit:g}) {'held' if is_held else 'MISSED'}", flush=True)
    return is_held


def _of_size(folder: Path, n_copies: int, arguments: argparse.Namespace) -> bool:
    write_inputs(folder, n_copies)
    n_rows = N_FLIGHTS * n_copies
    print(f"{n_rows:,} x {n_rows:,} rows, {len(FEATURES)} columns; load {os.getloadavg()[0]:.1f}", flush=True)
    is_large = n_copies > 1
    rounds = ROUNDS_OF_LARGE if is_large else ROUNDS
    peers = dict.fromkeys(PEERS, 1) if arguments.peers_python else {}
    found = _measure(
        {"scan": rounds, "least_scan": rounds, "arrow_scan": rounds, "report": rounds, "reference": 1, "scipy": 1}
        | peers,
        folder,
        arguments,
    )
    times = {way: found["report"].cpu / found[way].cpu for way in ("scan", "least_scan", "arrow_scan")}
    held = [_held("report, times one scan", times["scan"], MOST_OF_SCAN)]
    print(f"  times the least scan {times['least_scan']:.2f}, times handing over {times['arrow_scan']:.2f}", flush=True)
    held.append(_held("report, MB", found["report"].mb, MOST_MB))
    for peer in ("scipy", *peers):
        if peer in found:
            below = found[peer].cpu / found["report"].cpu
            if peer == "evidently" and not is_large:
                held.append(_held("Evidently, times the report", below, LEAST_BELOW_EVIDENTLY, is_least=True))
            else:
                print(f"  {peer}, times the report: {below:.1f}", flush=True)
    return all(held)


def _wide(folder: Path, n_rows: int, arguments: argparse.Namespace) -> bool:
    write_wide(folder, n_rows)
    print(f"{n_rows:,} rows x {WIDE_COLUMNS:,} columns; load {os.getloadavg()[0]:.1f}", flush=True)
    found = _measure({"scan": 1, "report": 1}, folder, arguments)
    print(f"  report, times one scan: {found['report'].cpu / found['scan'].cpu:.2f}", flush=True)
    held = _held("report, MB", found["report"].mb, MOST_MB_WIDE)
    if arguments.peers_python:
        print(
            f"{WIDE_ROWS_OF_PEERS:,} x {WIDE_ROWS_OF_PEERS:,} rows x {WIDE_COLUMNS:,} columns for the peers", flush=True
        )
        _measure({"scipy": 1} | dict.fromkeys(PEERS, 1), folder, arguments)
    return held


def main() -> int:
    """Write the inputs, measure, print; return 1 where a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers-python", help="of an environment with evidently and nannyml")
    parser.add_argument("--most-cpu", type=int, default=600, help="CPU seconds after which a peer is ended")
    parser.add_argument("--most-gb", type=int, default=14, help="address space that a peer may have")
    parser.add_argument("--folder", type=Path, help="keep the inputs here, and use them if they are there")
    parser.add_argument("--quick", action="store_true", help="336 thousand rows and, with --wide, 100 thousand only")
    parser.add_argument("--wide", action="store_true", help="also 3 million rows of 1,000 columns: 5 GB of disk")
    parser.add_argument("--way", choices=list(WAYS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        _measure_here(arguments.way, arguments.folder)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        copies = (1,) if arguments.quick else (1, 10)
        held = [_of_size(folder / f"copies_{n}", n, arguments) for n in copies]
        if arguments.wide:
            n_rows = WIDE_ROWS_AT_ONCE if arguments.quick else WIDE_ROWS
            held.append(_wide(folder / f"wide_{n_rows}", n_rows, arguments))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
