"""A table in files: every format on every store gives the packaged rows; what is not whole or does not fit is named."""

import gzip
import io
import json
import resource
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import csv, parquet

from ml_assets.backends.sources.files import FilesSource
from ml_assets.backends.sources.nycflights13 import NycFlights13Source
from ml_assets.core.contract_checks import check, ignored_columns
from ml_assets.core.contracts import Column, Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import (
    BadInput,
    ContractBroken,
    FileChanged,
    HalfWritten,
    SourceUnavailable,
    StorageFull,
)
from tests.servers.landing import Place, local_place
from tests.servers.proxy import Fault

PACKAGED = NycFlights13Source(is_replaying=False)
MONDAY, TUESDAY, WEDNESDAY = date(2013, 7, 1), date(2013, 7, 2), date(2013, 7, 3)
DAYS = DayRange(first=MONDAY, last=TUESDAY)


def one(day: date) -> DayRange:
    return DayRange(first=day, last=day)


def as_parquet(rows: pa.Table) -> bytes:
    written = io.BytesIO()
    parquet.write_table(rows, written)
    return written.getvalue()


def as_csv(rows: pa.Table) -> bytes:
    written = io.BytesIO()
    moments = [i for i, field in enumerate(rows.schema) if pa.types.is_timestamp(field.type)]
    for i in moments:
        rows = rows.set_column(i, rows.column_names[i], rows[i].cast(pa.string()))
    csv.write_csv(rows, written)
    return written.getvalue()


def as_json(rows: pa.Table) -> bytes:
    # A null is now and then absent, as most writers have it.
    told = ({k: v for k, v in row.items() if v is not None or k == "dep_time"} for row in rows.to_pylist())
    return "".join(json.dumps(row, default=lambda v: v.isoformat()) + "\n" for row in told).encode()


FORMATS: dict[str, Callable[[pa.Table], bytes]] = {
    ".parquet": as_parquet,
    ".csv": as_csv,
    ".jsonl": as_json,
    ".csv.gz": lambda rows: gzip.compress(as_csv(rows)),
    ".json.gz": lambda rows: gzip.compress(as_json(rows)),
}
LAYOUTS = ("{day}/part-{n}{ending}", "partition_on={day}/05/part-{n}{ending}")


@pytest.mark.parametrize(("ending", "layout"), list(zip(FORMATS, LAYOUTS * 3, strict=False)))
def test_days_come_back_as_they_were_packaged(place: Place, ending: str, layout: str, tmp_path: Path):
    contract = PACKAGED.contracts["flights"]
    write = FORMATS[ending]
    for day in (MONDAY, TUESDAY):
        rows = PACKAGED.read("flights", one(day))
        if layout.startswith("partition_on"):
            rows = rows.drop_columns("partition_on")  # as Hive and Spark write it
        place.put(layout.format(day=day, n=2, ending=ending), write(rows.slice(500)))
        place.put(layout.format(day=day, n=1, ending=ending), write(rows.slice(0, 500)))
        place.put(f"{day}/_SUCCESS", b"")
    source = FilesSource(store=place.store, contract=contract, work_folder=tmp_path / "work")
    assert source.read("flights", DAYS).equals(PACKAGED.read("flights", DAYS))
    assert source.read("flights", one(TUESDAY)).equals(PACKAGED.read("flights", one(TUESDAY)))
    assert source.read("flights", one(WEDNESDAY)).equals(contract.schema.empty_table())


@pytest.mark.parametrize("ending", FORMATS)
def test_a_table_without_days_lies_right_in_the_folder(place: Place, ending: str, tmp_path: Path):
    planes = PACKAGED.read("planes")
    place.put(f"planes{ending}", FORMATS[ending](planes))
    place.put("archive/planes.csv", b"no plane at all")
    source = FilesSource(store=place.store, contract=PACKAGED.contracts["planes"], work_folder=tmp_path / "work")
    assert source.read("planes").equals(planes)


# From here on the store makes no difference: a small table in a local folder.

SEEN = Contract(
    table="seen",
    description="One row per sighting.",
    columns=(
        Column(name="partition_on", type=pa.date32(), description="Day."),
        Column(name="who", type=pa.string(), description="Who."),
        Column(name="n", type=pa.int64(), description="How many.", nullable=True),
        Column(name="at", type=pa.timestamp("us", tz="UTC"), description="When.", nullable=True),
    ),
    key=("who",),
    is_partitioned=True,
)
HEADER = b"partition_on,who,n,at\n"
LINE = b"2013-07-01,A,1,2013-07-01T05:00:00Z\n"


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return local_place(tmp_path / "landing")


def seen(place: Place, **options) -> FilesSource:
    options = {"work_folder": Path(tempfile.gettempdir()), "patience_seconds": 5, **options}
    return FilesSource(store=place.store, contract=SEEN, **options)


def read(place: Place, **options) -> list[dict]:
    return seen(place, **options).read("seen", one(MONDAY)).to_pylist()


def row(who: str = "A", n: int | None = 1, at: str | None = "2013-07-01T05:00:00+00:00") -> dict:
    return {"partition_on": MONDAY, "who": who, "n": n, "at": datetime.fromisoformat(at) if at else None}


def test_nulls_quotes_and_zones_of_csv(here: Place):
    text = '2013-07-01,"a ""b"",\nc",,\n2013-07-01,NA,2,2013-07-01 07:00:00+02:00\n'
    here.put("2013-07-01/a.csv", b"\xef\xbb\xbf" + HEADER + text.encode())
    assert read(here) == [row('a "b",\nc', None, None), row("NA", 2)]


def test_another_text_for_null_is_said_in_the_url(here: Place):
    here.put("2013-07-01/a.csv", HEADER + b"2013-07-01,A,NA,\n")
    with pytest.raises(ContractBroken, match=r"a\.csv: column 'n': found invalid value 'NA'; expected int64"):
        read(here)
    assert read(here, nulls=("", "NA")) == [row("A", None, None)]


def test_the_files_of_a_day_are_read_in_the_order_of_their_names_so_that_the_last_correction_wins(here: Place):
    here.put("2013-07-01/b.csv", HEADER + b"2013-07-01,A,2,\n")
    here.put("2013-07-01/a.csv", HEADER + b"2013-07-01,A,1,\n2013-07-01,B,1,\n")
    checked = check(seen(here).read("seen", one(MONDAY)), SEEN, days=one(MONDAY))
    assert [(each["who"], each["n"]) for each in checked.accepted.to_pylist()] == [("B", 1), ("A", 2)]


def test_columns_in_another_order_width_and_number_are_fitted(here: Place):
    rows = {
        "extra": ["x"],
        "at": pa.array([datetime(2013, 7, 1, 5, tzinfo=UTC)], pa.timestamp("ms", tz="America/New_York")),
        "n": pa.array([1], pa.int16()),
        "who": pa.array(["A"], pa.large_string()).dictionary_encode(),
    }
    here.put("2013-07-01/a.parquet", as_parquet(pa.table(rows)))
    assert read(here) == [row()]


@pytest.mark.parametrize("ending", FORMATS)
def test_columns_of_which_the_contract_says_nothing_are_named_once_for_all_files_of_a_day(here: Place, ending: str):
    rows = pa.Table.from_pylist([row()], schema=SEEN.schema)
    here.put(f"2013-07-01/0{ending}", FORMATS[ending](rows))
    here.put(f"2013-07-01/1{ending}", FORMATS[ending](rows.append_column("gate", pa.array(["A7"]))))
    wide = rows.add_column(0, "seat", pa.array([9])).append_column("gate", pa.array(["A7"]))
    here.put(f"2013-07-01/2{ending}", FORMATS[ending](wide))
    found = seen(here).read("seen", one(MONDAY))
    assert ignored_columns(found, SEEN) == ("gate", "seat")
    assert found.to_pylist() == [row()] * 3
    checked = check(found, SEEN, days=one(MONDAY))
    assert (checked.ignored_columns, checked.accepted.schema.metadata) == (("gate", "seat"), None)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"partition_on,who,at\n2013-07-01,A,\n", "column 'n' is missing; found partition_on, who, at"),
        ("a.csv", HEADER + b"2013-07-01,A,many,\n", "column 'n': found invalid value 'many'; expected int64"),
        ("a.csv", HEADER + b"2013-07-01,A,1,2013-07-01T05:00:00\n", "column 'at': found expected a zone offset in"),
        ("a.csv", b"who,who,n,at\n", "two columns have one name"),
        ("a.csv", HEADER + b"2013-07-02,A,1,\n", "1 rows have partition_on 2013-07-02; expected 2013-07-01"),
        ("a.csv", b"who,n,at\n\xff\xfe,1,\n", "a.csv"),
        ("a.jsonl", b'{"who": "A", "n": "1"}\n', "column 'n': found JSON parse error: .*expected int64"),
        ("a.jsonl", b'{"who": "A", "n": 1.5}\n', "column 'n': found .*1.5; expected int64"),
        ("a.jsonl", b'{"who": "A", "at": "soon"}\n', "column 'at': found string, .*soon.*; expected timestamp"),
        ("a.jsonl", b'{"who": "A"}\n{"who": oops}\n{"who": "B"}\n', "is no file of JSON lines"),
        ("a.parquet", as_parquet(pa.table({"who": ["A"], "n": ["1"]})), "column 'at' is missing"),
        (
            "a.parquet",
            as_parquet(pa.table({"who": ["A"], "n": ["1"], "at": pa.nulls(1)})),
            "column 'n': found string; expected int64",
        ),
        (
            "a.parquet",
            as_parquet(pa.table({"who": ["A"], "n": [1], "at": pa.array([0], pa.timestamp("us"))})),
            r"column 'at': found timestamp\[us\]; expected timestamp\[us, tz=UTC\]",
        ),
        ("a.xlsx", b"PK", r"a\.xlsx: found no known ending; expected \.parquet, \.csv"),
    ],
)
def test_a_file_that_has_drifted_is_named_with_its_column(here: Place, name: str, content: bytes, said: str):
    here.put(f"2013-07-01/{name}", content)
    with pytest.raises((ContractBroken, HalfWritten), match=said) as refused:
        read(here)
    assert f"2013-07-01/{name}" in str(refused.value)


GOOD_PARQUET = as_parquet(pa.table({"who": ["A"] * 1000, "n": range(1000), "at": pa.nulls(1000)}))
CUTS = {
    "a.csv": HEADER + LINE * 3,
    "a.jsonl": b'{"who": "A", "n": 1}\n' * 3,
    "a.csv.gz": gzip.compress(HEADER + LINE * 3),
    "a.json.gz": gzip.compress(b'{"who": "A", "n": 1}\n' * 3),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_text_cut_anywhere_but_between_two_lines_is_half_written(here: Place, name: str):
    content = CUTS[name]
    whole_lines = set() if name.endswith(".gz") else {i + 1 for i, byte in enumerate(content) if byte == 10}
    if name == "a.jsonl":
        whole_lines |= {i - 1 for i in whole_lines}  # the brace ends the object
    for n_bytes in range(len(content)):
        if n_bytes in whole_lines:
            continue
        here.put(f"2013-07-01/{name}", content[:n_bytes])
        with pytest.raises((HalfWritten, ContractBroken), match=name):
            read(here)


def test_a_parquet_file_cut_anywhere_is_half_written(here: Place):
    for n_bytes in range(0, len(GOOD_PARQUET), 97):
        here.put("2013-07-01/a.parquet", GOOD_PARQUET[:n_bytes])
        with pytest.raises(HalfWritten, match=r"2013-07-01/a\.parquet"):
            read(here)


@pytest.mark.parametrize(
    "name",
    [
        *("2013-07-01/a.csv.tmp", "2013-07-01/a.csv._COPYING_", "2013-07-01/_temporary/0/a.csv"),
        *("2013-07-01/a.CSV.part", "_temporary/0/task/partition_on=2013-07-01/a.parquet"),
    ],
)
def test_a_day_that_is_still_being_written_is_not_read(here: Place, name: str):
    here.put("2013-07-01/0.csv", HEADER + LINE)
    here.put(name, HEADER)
    with pytest.raises(HalfWritten, match=r"still (being written|writing)"):
        read(here)


def test_hidden_files_are_no_data(here: Place):
    here.put("2013-07-01/0.csv", HEADER + LINE)
    for name in ("_SUCCESS", ".0.csv.crc", "_metadata", ".git/config", "_committed_1"):
        here.put(f"2013-07-01/{name}", b"x")
    assert read(here) == [row()]


def test_a_day_without_its_marker_is_not_read(here: Place):
    here.put("2013-07-01/0.csv", HEADER + LINE)
    with pytest.raises(HalfWritten, match=r"0\.csv has no _SUCCESS beside it"):
        read(here, marker="_SUCCESS")
    here.put("2013-07-01/_SUCCESS", b"")
    assert read(here, marker="_SUCCESS") == [row()]


def test_a_day_in_two_layouts_would_count_twice_and_is_refused(here: Place):
    here.put("2013-07-01/0.csv", HEADER + LINE)
    here.put("partition_on=2013-07-01/0.csv", HEADER + LINE)
    with pytest.raises(ContractBroken, match="2013-07-01 lies twice"):
        read(here)


def test_a_file_replaced_between_listing_and_reading_is_noticed(place: Place):
    place.put("2013-07-01/0.csv", HEADER + LINE)
    place.put("2013-07-01/1.csv", HEADER + LINE.replace(b",A,1,", b",B,1,"))
    rows = seen(place).batches("seen", one(MONDAY))
    assert next(rows)["who"].to_pylist() == ["A"]
    place.put("2013-07-01/1.csv", HEADER + LINE.replace(b",A,1,", b",B,9,"))
    with pytest.raises(FileChanged, match=r"1\.csv"):
        next(rows)


@pytest.mark.parametrize("place", ["s3", "gcs", "webhdfs"], indirect=True)
def test_a_server_that_fails_for_a_while_is_waited_for(place: Place):
    place.put("2013-07-01/0.csv", HEADER + LINE)
    for status in (503, 0, 503):
        place.proxy.faults.append(Fault(status=status, n_times=1))
    assert read(place) == [row()]
    place.proxy.faults.append(Fault(status=503, n_times=1000))
    impatient = replace(seen(place), patience_seconds=0.5)
    with pytest.raises(SourceUnavailable, match=r"tried again for 0\.5 s, nothing was written"):
        impatient.read("seen", one(MONDAY))


def test_the_version_of_a_day_changes_with_its_files_and_with_nothing_else(place: Place):
    source = seen(place)
    place.put("2013-07-01/0.csv", HEADER + LINE)
    place.put("2013-07-02/0.csv", HEADER)
    first = source.versions("seen", DAYS)
    assert set(first) == {MONDAY, TUESDAY}
    place.put("2013-07-01/_SUCCESS", b"")
    assert source.versions("seen", DAYS) == first
    place.put("2013-07-01/1.csv", HEADER)
    second = source.versions("seen", DAYS)
    assert (second[MONDAY] != first[MONDAY], second[TUESDAY]) == (True, first[TUESDAY])
    place.put("2013-07-01/1.csv", HEADER + LINE)
    assert source.versions("seen", DAYS)[MONDAY] != second[MONDAY]


def test_a_thousand_files_are_looked_through_in_turns_of_whole_days(here: Place):
    for n in range(100):
        for part in range(10):
            here.put(f"{date.fromordinal(MONDAY.toordinal() + n)}/{part}.csv", b"x")
    here.put("oops.csv", b"x")
    position, days, strays = "", [], []
    n_turns = 0
    while position or not n_turns:
        found, stray, position = seen(here).some_days(position, 95)
        assert all(len(each.data) == 10 for each in found)
        days += [each.day for each in found]
        strays += [file.path for file in stray]
        n_turns += 1
    assert n_turns == 11
    assert days == [date.fromordinal(MONDAY.toordinal() + n) for n in range(100)]
    assert strays == ["oops.csv"]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_files_are_copied_to_the_work_folder_and_leave_nothing_there(here: Place, tmp_path: Path, name: str):
    here.put(f"2013-07-01/{name}", gzip.compress(HEADER + LINE) if name.endswith(".gz") else HEADER + LINE)
    work = tmp_path / "home" / "work"
    rows = read(here, work_folder=work)
    assert (rows, list(work.iterdir())) == ([row()], [])
    work.rmdir()
    work.write_bytes(b"no folder")  # nowhere else is a copy made
    with pytest.raises(FileExistsError, match=str(work)):
        read(here, work_folder=work)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_a_full_work_folder_is_told_as_such(here: Place, tmp_path: Path, name: str):
    lines = HEADER + LINE * 5000
    here.put(f"2013-07-01/{name}", gzip.compress(lines) if name.endswith(".gz") else lines)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(StorageFull, match=rf"{tmp_path} has no room for a copy of the file .* free some space"):
            read(here, work_folder=tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(read(here, work_folder=tmp_path)) == 5000


def test_days_and_tables_that_are_not_its_own_are_refused(here: Place):
    with pytest.raises(BadInput, match="holds seen, not 'flights'"):
        seen(here).read("flights", one(MONDAY))
    with pytest.raises(BadInput, match="seen is read by days"):
        seen(here).read("seen")
