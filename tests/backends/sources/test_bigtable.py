"""A raw table from Bigtable: a day is a range of keys, text becomes typed, a broken stream loses nothing."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import grpc
import pyarrow as pa
import pytest
from google.cloud.bigtable import Client
from google.cloud.bigtable.column_family import MaxVersionsGCRule
from google.cloud.bigtable.data import BigtableDataClient, SetCell

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources import bigtable as module
from ml_assets.backends.sources.bigtable import BigtableSource
from ml_assets.core.contracts import Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import (
    BadInput,
    ContractBroken,
    InvalidName,
    SourceDenied,
    SourceMissing,
    SourceUnavailable,
)
from ml_assets.resources import source_of
from tests.servers.bigtable import BigtableServer

pytestmark = pytest.mark.filterwarnings("ignore:Connecting to Bigtable emulator:RuntimeWarning")

PROJECT, INSTANCE, TABLE, FAMILY = "acme-ml-staging", "lake", "flights", "f"
MONDAY, TUESDAY = date(2013, 7, 1), date(2013, 7, 2)
ONE, DAYS = DayRange(first=MONDAY, last=MONDAY), DayRange(first=MONDAY, last=TUESDAY)
SEEN = Contract(
    table="seen",
    description="Seen.",
    columns=(
        Column(name="carrier", type=pa.string(), description="Airline.", nullable=True),
        Column(name="partition_on", type=pa.date32(), description="Local day."),
        Column(name="flight", type=pa.int64(), description="Number."),
        Column(name="delay", type=pa.float64(), description="Minutes.", nullable=True),
        Column(name="is_late", type=pa.bool_(), description="Late.", nullable=True),
        Column(name="left_on", type=pa.date32(), description="Day.", nullable=True),
        Column(name="seen_at", type=pa.timestamp("us", "UTC"), description="When.", nullable=True),
    ),
    key=("flight",),
    is_partitioned=True,
)
FULL = {"carrier": "Uné", "delay": "-1.5", "is_late": "true", "left_on": "2013-07-02"}
FULL |= {"seen_at": "2013-07-01T10:00:00Z"}
MOMENT = datetime(2013, 7, 1, 12, tzinfo=UTC)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[BigtableServer]:
    with BigtableServer() as server:
        monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", server.address)
        yield server


def filled() -> BigtableSource:
    """A source on a new table with a row before, two of Monday, one of Tuesday, one after; cells beside theirs."""
    client = Client(project=PROJECT, admin=True)
    table = client.instance(INSTANCE).table(TABLE)
    table.create(column_families={FAMILY: MaxVersionsGCRule(5), "other": MaxVersionsGCRule(1)})
    days = [date(2013, 6, 30), MONDAY, MONDAY, TUESDAY, date(2013, 7, 3)]
    for flight, day in enumerate(days, start=1):
        row = table.direct_row(f"{day}#UA#{flight}")
        cells = {"flight": str(flight), **(FULL if flight != 3 else {})}
        for name, text in cells.items():
            row.set_cell(FAMILY, name, text.encode(), timestamp=MOMENT)
        row.set_cell(FAMILY, "flight", b"999", timestamp=MOMENT - timedelta(hours=1))
        row.set_cell(FAMILY, "gate", b"A7", timestamp=MOMENT)
        row.set_cell("other", "flight", b"888", timestamp=MOMENT + timedelta(hours=1))
        row.commit()
    client.close()
    return BigtableSource(
        project=PROJECT,
        instance=INSTANCE,
        table=TABLE,
        family=FAMILY,
        contract=SEEN,
        connect=lambda: BigtableDataClient(project=PROJECT),
        patience_seconds=20,
    )


@pytest.fixture
def source(server: BigtableServer) -> BigtableSource:
    return filled()


def put(source: BigtableSource, key: str, **cells: bytes) -> None:
    with source.connect() as client, client.get_table(INSTANCE, TABLE) as table:
        table.mutate_row(key, [SetCell(FAMILY, name, value) for name, value in cells.items()])


def expected(*flights: int) -> pa.Table:
    full = {"carrier": "Uné", "delay": -1.5, "is_late": True, "left_on": TUESDAY}
    full |= {"seen_at": datetime(2013, 7, 1, 10, tzinfo=UTC)}
    days = {2: MONDAY, 3: MONDAY, 4: TUESDAY}
    rows = [{"partition_on": days[n], "flight": n, **(full if n != 3 else {})} for n in flights]
    return pa.Table.from_pylist(rows, schema=SEEN.schema)


def check_days(source: BigtableSource) -> None:
    assert source.read("seen", ONE).equals(expected(2, 3))
    assert source.read("seen", DAYS).equals(expected(2, 3, 4))
    later = DayRange(first=date(2014, 1, 1), last=date(2014, 1, 1))
    assert source.read("seen", later).equals(SEEN.schema.empty_table())


def test_a_day_is_a_range_of_keys_and_the_newest_text_becomes_typed(source: BigtableSource, server: BigtableServer):
    check_days(source)
    (asked,) = server.reads[0].rows.row_ranges
    assert (asked.start_key_closed, asked.end_key_open) == (b"2013-07-01#", b"2013-07-01$")


@pytest.mark.skipif(shutil.which("cbtemulator") is None, reason="Google's cbtemulator is not on this machine")
def test_googles_emulator_says_the_same(monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("BIGTABLE_EMULATOR_HOST", f"127.0.0.1:{port}")
    with ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(["cbtemulator", f"-port={port}"], env=dict(os.environ)))
        stack.callback(process.kill)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
        check_days(filled())


def test_rows_come_in_parts(source: BigtableSource, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    parts = list(source.batches("seen", DAYS))
    assert [part.num_rows for part in parts] == [2, 1]
    assert pa.concat_tables(parts).equals(expected(2, 3, 4))


@pytest.mark.parametrize("after_rows", [0, 1, 2, 3])
def test_a_stream_that_breaks_off_goes_on_after_its_last_row(
    source: BigtableSource, server: BigtableServer, after_rows: int
):
    server.break_read(after_rows=after_rows)
    assert source.read("seen", DAYS).equals(expected(2, 3, 4))
    assert len(server.reads) == 2
    (asked,) = server.reads[1].rows.row_ranges
    last = [b"", b"2013-07-01#UA#2", b"2013-07-01#UA#3", b"2013-07-02#UA#4"][after_rows]
    assert asked.start_key_open == last


def test_a_table_that_stays_away_is_said_to_be_away(source: BigtableSource, server: BigtableServer):
    server.break_read(after_rows=1, n=1000)
    with pytest.raises(SourceUnavailable, match=r"bigtable://acme-ml-staging/lake/flights\?family=f does not answer"):
        replace(source, patience_seconds=0.1).read("seen", DAYS)


def test_what_is_not_there_or_not_allowed_says_what_to_do(source: BigtableSource, server: BigtableServer):
    with pytest.raises(SourceMissing, match=r"lake/gone.*is not there"):
        replace(source, table="gone").read("seen", DAYS)
    server.break_read(after_rows=1, code=grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(SourceDenied, match=r"needs bigtable\.reader"):
        source.read("seen", DAYS)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [
        ("flight", b"15.5", "int64"),
        ("flight", b"", "int64"),
        ("delay", b"late", "double"),
        ("is_late", b"maybe", "bool"),
        ("left_on", b"07/02/2013", "date32"),
        ("seen_at", b"2013-07-01 10:00 EST", "timestamp"),
        ("carrier", b"\xff\xfe", "string"),
    ],
)
def test_a_cell_of_another_type_is_named_with_its_row(source: BigtableSource, name: str, value: bytes, kind: str):
    put(source, "2013-07-01#UA#7", **{"flight": b"7", name: value})
    with pytest.raises(ContractBroken, match=rf"the cell '{name}' of row b'2013-07-01#UA#7' is b'.*expected .* {kind}"):
        source.read("seen", DAYS)


def test_a_key_that_does_not_begin_with_a_day_is_named(source: BigtableSource):
    put(source, "2013-07-01-UA-8", flight=b"8")
    with pytest.raises(ContractBroken, match=r"row key b'2013-07-01-UA-8'; expected one that begins with a day"):
        source.read("seen", DAYS)
    assert source.read("seen", ONE).equals(expected(2, 3))


def test_a_table_without_days_is_read_whole(source: BigtableSource):
    columns = tuple(column for column in SEEN.columns if column.name != "partition_on")
    whole = replace(source, contract=replace(SEEN, columns=columns, is_partitioned=False))
    assert whole.read("seen")["flight"].to_pylist() == [1, 2, 3, 4, 5]
    with pytest.raises(BadInput, match="offers seen, by days"):
        source.read("seen")


def test_names_that_are_no_names_are_refused(source: BigtableSource):
    for field in ("project", "instance", "table", "family"):
        with pytest.raises(InvalidName, match="expected bigtable://project/instance/table"):
            replace(source, **{field: "a/../b"})


def test_the_url_of_the_environment_leads_to_it(server: BigtableServer):
    source = filled()
    put(source, "UA", carrier=b"UA", name=b"United")
    url = f"bigtable://{PROJECT}/{INSTANCE}/{TABLE}"
    emulator = {"BIGTABLE_EMULATOR_HOST": os.environ["BIGTABLE_EMULATOR_HOST"]}
    routed = source_of(Environment.of({**emulator, "ML_ASSETS_SOURCES": f"airlines={url}?family={FAMILY}"}))
    assert {"carrier": "UA", "name": "United"} in routed.read("airlines").to_pylist()
    for wrong in (url, f"{url}/x?family=f", f"{url}?family=f&day=x"):
        with pytest.raises(BadInput, match=r"expected bigtable://project/instance/table\?family=F"):
            source_of(Environment.of({**emulator, "ML_ASSETS_SOURCES": f"airlines={wrong}"}))
