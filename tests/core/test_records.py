"""Files of records give back every bit, refuse every damage, and stream in an order that is shuffled and complete."""

import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary, encode
from ml_assets.core.errors import BadInput
from ml_assets.core.record_format import RecordHeader, aligned, layout_of, packed, sha256_of
from ml_assets.core.record_writer import write_records
from ml_assets.core.records import RecordedInputs, RecordFile, answers, numbers_to_look_at

NUMBERS, TEXTS = ("wind_speed_mph", "n_flights", "is_holiday"), ("origin", "carrier")


def _signature(numeric=NUMBERS, categorical=TEXTS) -> Signature:
    def inputs(names):
        return tuple(Input(name=name, view="v", description="") for name in names)

    return Signature(numeric=inputs(numeric), categorical=inputs(categorical))


def _write(path: Path, *tables: pa.Table, signature: Signature | None = None, block_rows: int = 8) -> RecordFile:
    signature = signature or _signature()
    vocabulary = Vocabulary.of(tables[0], signature)
    write_records(
        path,
        tables,
        signature=signature,
        vocabulary=vocabulary,
        source="set/train",
        coding="codes",
        work_folder=path.parent,
        block_rows=block_rows,
    )
    return RecordFile(path)


def _table(wind, n_flights, is_holiday, origin, carrier, label) -> pa.Table:
    return pa.table(
        {
            "wind_speed_mph": pa.array(wind, pa.float32()),
            "n_flights": pa.array(n_flights, pa.int64()),
            "is_holiday": pa.array(is_holiday, pa.bool_()),
            "origin": pa.array(origin, pa.string()),
            "carrier": pa.array(carrier, pa.string()),
            "label": pa.array(label),
        }
    )


def _numbered(n: int) -> pa.Table:
    """Rows whose number is their label and their wind."""
    rows = np.arange(n)
    return _table(rows, rows % 5, rows % 3 == 0, [f"A{row % 7}" for row in rows], ["UA"] * n, rows.astype(np.float32))


WINDS = st.lists(
    st.one_of(
        st.none(),
        st.sampled_from([-0.0, 0.0, float("inf"), float("-inf"), float("nan"), 1e-45, 39.02]),
        st.floats(width=32),
    ),
    max_size=40,
)


@settings(max_examples=30, deadline=None)
@given(wind=WINDS, data=st.data())
def test_what_is_read_are_the_bits_that_the_model_reads_without_a_file(wind, data):
    n = len(wind)
    column = {
        name: data.draw(st.lists(st.one_of(st.none(), values), min_size=n, max_size=n))
        for name, values in {
            "n_flights": st.integers(-(2**53), 2**53),
            "is_holiday": st.booleans(),
            "origin": st.sampled_from(["", "EWR", "JFK", "Ünïcode"]),
            "carrier": st.text(max_size=3),
        }.items()
    }
    label = data.draw(st.lists(st.floats(-1e6, 1e6), min_size=n, max_size=n))
    table = _table(wind, *column.values(), pa.array(label, pa.float64()))
    cut = data.draw(st.integers(0, n))
    vocabulary = Vocabulary.of(table[:cut], _signature())
    with TemporaryDirectory() as folder:
        file = _write(Path(folder) / "a.records", table[:cut], table[cut:])
        expected = encode(table, _signature(), vocabulary)
        found = file.coded()
        assert found.numeric.tobytes() == expected.numeric.tobytes()
        assert found.categorical.tobytes() == expected.categorical.tobytes()
        assert file.labels().tobytes() == np.array(label, dtype=np.float32).tobytes()
        streamed = list(file.batches(batch_rows=7, memory_bytes=1, is_shuffled=False))
        assert [len(labels) for _, _, labels in streamed] == [7] * (n // 7) + [n % 7] * (n % 7 > 0)
        assert b"".join(numbers.tobytes() for numbers, _, _ in streamed) == expected.numeric.tobytes()


def test_each_column_takes_the_narrowest_storage_that_loses_nothing(tmp_path):
    n = 5000
    draw = np.random.default_rng(1)
    values = {
        "whole": draw.integers(0, 200, n),  # 1 byte and a table of 200 for 4 bytes
        "share": draw.permutation(n) % 1000 / 1000,  # 2 bytes and a table of 1000
        "mean": draw.normal(size=n),  # no value twice
    }
    codes = {"few": [f"{row % 254}" for row in range(n)], "many": [f"{row % 255}" for row in range(n)]}
    table = pa.table({**values, **codes, "label": draw.random(n) < 0.5})
    file = _write(tmp_path / "a.records", table, signature=_signature(tuple(values), tuple(codes)), block_rows=n)
    # Null and unseen are codes too: 254 values fit one byte, 255 do not.
    stored = [(column.name, column.storage, column.n_values) for column in file.header.columns]
    assert stored == [
        ("whole", "table8", 200),
        ("share", "table16", 1000),
        ("mean", "float32", 0),
        ("few", "uint8", 256),
        ("many", "uint16", 257),
        ("label", "table8", 2),
    ]
    tables = aligned(4 * 200) + aligned(4 * 1000) + aligned(4 * 2)
    rows = aligned(n) + aligned(2 * n) + aligned(4 * n) + aligned(n) + aligned(2 * n) + aligned(n)
    assert (tmp_path / "a.records").stat().st_size - file.layout.tables_at == tables + rows
    assert file.coded().numeric[:, 1].tolist() == values["share"].astype(np.float32).tolist()
    assert file.coded().categorical[253:256, 1].tolist() == [
        Vocabulary.of(table, _signature((), ("many",))).codes("many")[value] for value in ("253", "254", "0")
    ]


def test_more_distinct_numbers_than_a_table_holds_are_kept_as_they_are(tmp_path):
    # 65,537 values, each four times: a table would pay, but a position no longer fits two bytes.
    rows = np.tile(np.arange(65_537), 4)
    table = pa.table({"n": rows, "m": rows % 65_536, "label": np.zeros(len(rows))})
    file = _write(tmp_path / "a.records", table, signature=_signature(("n", "m"), ()), block_rows=8192)
    assert [column.storage for column in file.header.columns] == ["float32", "table16", "table8"]
    np.testing.assert_array_equal(file.coded().numeric, np.stack([rows, rows % 65_536], axis=1).astype(np.float32))


def test_a_column_that_is_missing_or_of_another_type_is_refused_and_nothing_is_written(tmp_path):
    unlabelled = _numbered(3).drop_columns(["label"])
    retyped = _numbered(3).set_column(0, "wind_speed_mph", pa.array(["x"] * 3))
    for table, column in ((unlabelled, "label"), (retyped, "wind_speed_mph")):
        with pytest.raises(BadInput, match=column):
            _write(tmp_path / "a.records", _numbered(20), table)
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_anywhere_is_refused(tmp_path):
    path = tmp_path / "a.records"
    _write(path, _numbered(20))
    whole = path.read_bytes()
    for at in [*range(64), *range(64, len(whole), 5)]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        with pytest.raises(BadInput, match=r"a\.records"):
            RecordFile(path).verify()


def test_a_damaged_block_is_refused_by_whatever_reads_it_and_the_others_are_served(tmp_path):
    path = tmp_path / "a.records"
    first, _ = _write(path, _numbered(20)).layout.block_span(1)
    content = bytearray(path.read_bytes())
    content[first] ^= 1
    path.write_bytes(content)
    file = RecordFile(path)
    batches = file.batches(batch_rows=4, memory_bytes=1, is_shuffled=False)
    assert next(batches)[2].tolist() == [0, 1, 2, 3]
    for read in (lambda: next(batches), file.coded, file.labels, file.verify):
        with pytest.raises(BadInput, match="block 1"):
            read()


def test_a_file_cut_short_or_with_more_at_its_end_is_refused(tmp_path):
    path = tmp_path / "a.records"
    _write(path, _numbered(20))
    whole = path.read_bytes()
    for content in [*(whole[:n] for n in range(0, len(whole), 13)), whole + b"\0"]:
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"a\.records"):
            RecordFile(path)


LIES: dict[str, Callable[[RecordHeader], RecordHeader]] = {
    "rows": lambda h: replace(h, n_rows=2**62, blocks_sha256=h.blocks_sha256),
    "fewer rows": lambda h: replace(h, n_rows=h.n_rows - 8),
    "no rows": lambda h: replace(h, n_rows=-1, blocks_sha256=()),
    "no block": lambda h: replace(h, block_rows=0),
    "huge block": lambda h: replace(h, block_rows=2**40, blocks_sha256=h.blocks_sha256[:1]),
    "no digests": lambda h: replace(h, blocks_sha256=()),
    "no label": lambda h: replace(h, columns=h.columns[:-1]),
    "two labels": lambda h: replace(h, columns=(*h.columns, replace(h.columns[-1], name="other"))),
    "order": lambda h: replace(h, columns=h.columns[::-1]),
    "one name twice": lambda h: replace(h, columns=(replace(h.columns[1], name=h.columns[0].name), *h.columns[1:])),
    "no table": lambda h: replace(h, columns=(replace(h.columns[0], n_values=7), *h.columns[1:])),
    "table": lambda h: replace(h, columns=(h.columns[0], replace(h.columns[1], n_values=2**50), *h.columns[2:])),
    "negative table": lambda h: replace(h, columns=(h.columns[0], replace(h.columns[1], n_values=-64), *h.columns[2:])),
    "storage": lambda h: replace(h, columns=(replace(h.columns[0], storage="uint8", n_values=4), *h.columns[1:])),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_is_signed_but_impossible_is_refused(tmp_path, lie):
    path = tmp_path / "a.records"
    file = _write(path, _numbered(20))
    body = path.read_bytes()[file.layout.tables_at :]
    assert [column.storage for column in file.header.columns][:2] == ["float32", "table8"]
    path.write_bytes(packed(file.header) + body)
    RecordFile(path).verify()
    path.write_bytes(packed(LIES[lie](file.header)) + body)
    with pytest.raises(BadInput, match=r"a\.records"):
        RecordFile(path)


@pytest.mark.parametrize("position", [1, 3])
def test_a_code_beyond_its_table_or_vocabulary_is_refused_though_it_is_signed(tmp_path, position):
    path = tmp_path / "a.records"
    file = _write(path, _numbered(20))
    content = bytearray(path.read_bytes())
    content[file.layout.column_at(0)[position]] = 255
    start, end = file.layout.block_span(0)
    digests = (sha256_of(memoryview(content)[start:end]), *file.header.blocks_sha256[1:])
    content[: file.layout.tables_at] = packed(replace(file.header, blocks_sha256=digests))
    path.write_bytes(content)
    with pytest.raises(BadInput, match="codes beyond"):
        RecordFile(path).coded()


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_of_the_format_is_refused(tmp_path, version):
    _write(tmp_path / "a.records", _numbered(3))
    content = bytearray((tmp_path / "a.records").read_bytes())
    content[8:12] = struct.pack("<I", version)
    with pytest.raises(BadInput, match=f"version {version}"):
        layout_of(bytes(content), "a.records")


def test_what_is_no_plain_file_is_not_opened(tmp_path):
    _write(tmp_path / "a.records", _numbered(3))
    (tmp_path / "link").symlink_to(tmp_path / "a.records")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    for name in ("link", "pipe", "empty", "absent", "."):
        with pytest.raises(BadInput, match=r"plain file|0 bytes"):
            RecordFile(tmp_path / name)


WRITER = """
import os, signal, sys
from pathlib import Path
import pyarrow as pa
from ml_assets.core import record_writer
from ml_assets.core.encoding import Input, Signature, Vocabulary
path, moment = Path(sys.argv[1]), sys.argv[2]
kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
def batches():
    for number in range(4):
        if moment == "while rows come" and number == 3:
            kill()
        yield pa.table({"n": [number] * 100, "label": [0.0] * 100})
if moment == "before it is on disk":
    os.fsync = kill
if moment == "before it has its name":
    Path.replace = kill
record_writer.write_records(
    path, batches(), signature=Signature(numeric=(Input(name="n", view="v", description=""),), categorical=()),
    vocabulary=Vocabulary(values={}), source="s", coding="c", work_folder=path.parent, block_rows=64)
"""


@pytest.mark.parametrize("moment", ["while rows come", "before it is on disk", "before it has its name", "never"])
def test_a_writer_killed_at_any_moment_leaves_the_earlier_file_or_none(tmp_path, moment):
    path = tmp_path / "a.records"
    before = b""
    if moment in ("before it has its name", "never"):
        _write(path, _numbered(20))
        before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", WRITER, str(path), moment], check=False, timeout=60)
    assert done.returncode == (0 if moment == "never" else -9)
    if moment == "never":
        assert RecordFile(path).coded().numeric[:, 0].tolist() == [float(row // 100) for row in range(400)]
    else:
        assert (path.read_bytes() if path.exists() else b"") == before


# --- shuffling ------------------------------------------------------------------------------------------------------

N_ROWS, BLOCK_ROWS = 10_000, 100
ROW_BYTES = 4 * 3 + 8 * 2 + 4


@pytest.fixture(scope="module")
def numbered(tmp_path_factory) -> RecordFile:
    return _write(tmp_path_factory.mktemp("records") / "a.records", _numbered(N_ROWS), block_rows=BLOCK_ROWS)


def _order(file: RecordFile, **arguments) -> np.ndarray:
    """The numbers of the rows as they come; a row's columns must have stayed together."""
    defaults = {"batch_rows": 64, "memory_bytes": 1000 * ROW_BYTES, "is_shuffled": True, "seed": 5}
    parts = list(file.batches(**{**defaults, **arguments}))
    whole = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
    expected = encode(_numbered(N_ROWS), _signature(), Vocabulary.of(_numbered(N_ROWS), _signature()))
    rows = whole[2].astype(int)
    np.testing.assert_array_equal(whole[0], expected.numeric[rows])
    np.testing.assert_array_equal(whole[1], expected.categorical[rows])
    assert {len(labels) for _, _, labels in parts[:-1]} == {arguments.get("batch_rows", 64)}
    return rows


@pytest.mark.parametrize("memory_rows", [1, 1000, 10 * N_ROWS])
def test_every_row_comes_once_in_an_order_of_the_seed_and_the_epoch(numbered, memory_rows):
    memory = {"memory_bytes": memory_rows * ROW_BYTES}
    orders = [_order(numbered, epoch=1, **memory), _order(numbered, epoch=2, **memory)]
    orders.append(_order(numbered, seed=6, **memory))
    assert all(np.array_equal(np.sort(order), np.arange(N_ROWS)) for order in orders)
    assert np.array_equal(orders[0], _order(numbered, epoch=1, **memory))
    # Two random orders have a row in the same place about once in all.
    assert all(np.sum(a == b) < 20 for a, b in zip(orders, [*orders[1:], orders[0]], strict=True))


def test_a_buffer_of_a_tenth_of_the_file_leaves_no_order_of_the_rows(numbered):
    order = _order(numbered)
    # Of 100 blocks in a random order the rank correlation is within 3 / sqrt(100).
    assert abs(np.corrcoef(np.arange(N_ROWS), order)[0, 1]) < 0.3
    # Of a full permutation 2 in N_ROWS neighbours were neighbours; among a buffer's 1,000 rows ten times as many.
    assert np.mean(np.abs(np.diff(order)) == 1) < 3 * 2 / 1000
    # A batch of 64 draws from about ten blocks: all in one block would differ by less than 100.
    n_blocks = [len(np.unique(order[first : first + 64] // BLOCK_ROWS)) for first in range(0, N_ROWS - 64, 64)]
    assert np.mean(n_blocks) > 8


def test_a_buffer_of_the_whole_file_mixes_as_a_permutation_does(numbered):
    order = _order(numbered, memory_bytes=2 * N_ROWS * ROW_BYTES)
    assert abs(np.corrcoef(np.arange(N_ROWS), order)[0, 1]) < 4 / np.sqrt(N_ROWS)
    # 64 of 100 blocks are hit 100 * (1 - 0.99 ** 64) = 47.4 times on average.
    n_blocks = [len(np.unique(order[first : first + 64] // BLOCK_ROWS)) for first in range(0, N_ROWS - 64, 64)]
    assert np.mean(n_blocks) == pytest.approx(47.4, abs=1)


def test_unshuffled_rows_come_as_they_lie(numbered):
    assert np.array_equal(_order(numbered, is_shuffled=False), np.arange(N_ROWS))


@pytest.mark.parametrize("is_shuffled", [True, False])
@pytest.mark.parametrize("world", [1, 3, 7])
def test_shares_are_disjoint_of_one_size_and_leave_out_less_than_a_row_each(numbered, world, is_shuffled):
    shares = [_order(numbered, share=(rank, world), is_shuffled=is_shuffled) for rank in range(world)]
    assert {len(rows) for rows in shares} == {N_ROWS // world}
    together = np.concatenate(shares)
    assert len(np.unique(together)) == len(together) > N_ROWS - world
    n_steps = [len(list(numbered.batches(batch_rows=64, memory_bytes=1, is_shuffled=True, share=(rank, world))))
               for rank in range(world)]  # fmt: skip
    assert set(n_steps) == {numbered.n_batches(64, (0, world))}


# --- memory ---------------------------------------------------------------------------------------------------------

STREAMER = """
import sys, resource
from pathlib import Path
import numpy as np, pyarrow as pa
from ml_assets.core.encoding import Input, Signature, Vocabulary
from ml_assets.core.record_writer import write_records
from ml_assets.core.records import RecordedInputs, RecordFile, numbers_to_look_at
path, n_batches = Path(sys.argv[1]), int(sys.argv[2])
names = [f"n{i}" for i in range(40)]
def batches(n):
    for number in range(n):
        values = np.random.default_rng(number).normal(size=(20_000, 40))
        yield pa.table({**dict(zip(names, values.T)), "label": values[:, 0] > 0})
signature = Signature(numeric=tuple(Input(name=n, view="v", description="") for n in names), categorical=())
def run(n):
    write_records(path, batches(n), signature=signature, vocabulary=Vocabulary(values={}), source="", coding="",
                  work_folder=path.parent)
    peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]
    file = RecordFile(path)
    file.verify()
    n_rows = sum(len(b[2]) for b in file.batches(batch_rows=1024, memory_bytes=8 << 20, is_shuffled=True))
    assert n_rows == len(file.labels()) == n * 20_000
    numbers_to_look_at(RecordedInputs(file, memory_bytes=8 << 20))
    return [*peaks, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file.decoded_bytes]
run(2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(before, *run(n_batches))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="pages are given back by a call of Linux")
def test_writing_and_streaming_take_no_more_memory_for_eight_times_the_rows(tmp_path):
    command = [sys.executable, "-c", STREAMER, str(tmp_path / "a.records"), "20"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    before, written, read, decoded = map(int, done.stdout.split())
    assert decoded == 400_000 * 41 * 4  # 64 MB
    # A batch of 20,000 rows is 6 MB as it comes, sixteen blocks are 20 MB, the buffer 8 MB.
    assert (written - before) * 1024 < 24 << 20
    assert (read - before) * 1024 < 32 << 20


def test_inputs_larger_than_the_memory_are_arrays_for_who_asks_and_a_sample_for_who_looks(numbered):
    inputs = RecordedInputs(numbered, memory_bytes=4000 * ROW_BYTES)
    assert len(inputs) == N_ROWS
    seen = numbers_to_look_at(inputs)
    rows = seen[:, 0].astype(int)
    assert len(np.unique(rows)) == len(seen) == 1000  # a quarter of the memory
    assert np.array_equal(seen, numbered.coded().numeric[rows])
    assert abs(np.median(rows) - N_ROWS / 2) < 3 * N_ROWS / 2 / np.sqrt(1000)
    assert "numeric" not in vars(inputs)
    assert np.array_equal(inputs.numeric, numbered.coded().numeric)
    assert np.array_equal(inputs.categorical, numbered.coded().categorical)
    whole = Coded(numeric=np.ones((2, 1), np.float32), categorical=np.ones((2, 0), np.int64))
    assert numbers_to_look_at(whole) is whole.numeric


def test_a_model_is_asked_for_its_answers_in_order_and_batch_by_batch_where_memory_is_short(numbered):
    asked: list[int] = []

    def first_number(inputs: Coded) -> np.ndarray:
        asked.append(len(inputs))
        return inputs.numeric[:, 0].astype(np.float64)

    streamed = RecordedInputs(numbered, memory_bytes=4000 * ROW_BYTES)
    assert np.array_equal(answers(first_number, streamed), np.arange(N_ROWS))
    assert asked == [1000] * 10  # a quarter of the memory each
    assert "numeric" not in vars(streamed)
    asked.clear()
    assert np.array_equal(answers(first_number, numbered.coded()), np.arange(N_ROWS))
    assert asked == [N_ROWS]
