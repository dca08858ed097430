"""Feeding a tabular net from disk: the files of records beside Parquet, TensorDataset, WebDataset and HF datasets.

    python -m benchmarks.records [--home FOLDER] [--peers-python PYTHON]

On the examples of ``arrival_delay`` of 2013, coded: rows a CPU second (user and system, one thread) of a shuffled pass
at batch 1024, what opening costs before the first, and bytes on disk. Medians of interleaved rounds. The year is landed
first; with ``--home`` it is kept there and used again by the next call. ``--peers-python`` names the interpreter of an
environment with datasets, webdataset and torch: pip would move versions that this project pins.

Exits with 1 where five passes with their opening are less than 5 times as fast as TensorDataset and DataLoader from
Parquet, or, all rows held in memory, a pass is less than half as fast as index_select on arrays that are there already.
"""

import argparse
import json
import logging
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.model_quality import USE_CASE, freeze, land_year
from ml_assets.backends.environments import Environment
from ml_assets.core.encoding import Coded, Signature, Vocabulary, encode
from ml_assets.core.record_writer import write_records
from ml_assets.core.records import RecordedInputs, RecordFile
from ml_assets.core.trainers import Labelled
from ml_assets.core.trainers.lightning import loader
from ml_assets.core.trainers.slices import Batch
from ml_assets.core.trainers.streaming import StreamingLoader
from ml_assets.lifecycle import Lifecycle
from ml_assets.resources import feature_views_of

BATCH_ROWS, ROW_GROUP_ROWS = 1024, 8192
BUFFER_BYTES = 64 * 1024 * 1024  # of the streamed pass: a sixth of the arrays
SLOW_PEERS_ROWS = 20_000  # row by row formats take a minute a pass over the year
LEAST_OF_DATALOADER, LEAST_OF_MEMORY = 5.0, 0.5
N_PASSES = 5  # epochs of a training

IN_MEMORY, HELD = "arrays coded anew, index_select", "records, held in memory"
STREAMED, ROW_GROUPS = "records, streamed (64 MB)", "Parquet, shuffled row groups"
DATALOADER = "Parquet, TensorDataset + DataLoader"

Batches = Iterable[Batch]


def land(home: Path) -> tuple[pa.Table, Signature]:
    """Return the year's examples, all parts in order of time, and what a model reads of them."""
    os.environ["ML_ASSETS_HOME"], os.environ["ML_ASSETS_TRACKER"] = str(home), "disabled"
    environment = Environment.current()
    inputs = USE_CASE.inputs(feature_views_of(environment))
    life = Lifecycle(environment)
    land_year(life)
    frozen = freeze(life, inputs)
    return pa.concat_tables([frozen.train, frozen.validation, frozen.test]), Signature.of(inputs)


def of_parquet(path: Path, signature: Signature) -> Labelled:
    """Read a whole Parquet file of coded examples."""
    return _arrays(pq.read_table(path, use_threads=False), signature)


def row_groups(path: Path, signature: Signature) -> Iterator[Batch]:
    """Read the row groups of a Parquet file in random order, shuffled within."""
    file = pq.ParquetFile(path)
    for group in torch.randperm(file.num_row_groups).tolist():
        yield from loader(
            _arrays(file.read_row_group(group, use_threads=False), signature), batch_rows=BATCH_ROWS, is_shuffled=True
        )


def _arrays(table: pa.Table, signature: Signature) -> Labelled:
    numeric = np.stack([table[column.name].to_numpy() for column in signature.numeric], axis=1)
    categorical = np.stack([table[column.name].to_numpy() for column in signature.categorical], axis=1)
    coded = Coded(numeric=numeric, categorical=categorical.astype(np.int64))
    return Labelled(inputs=coded, labels=table["label"].to_numpy().copy())


def coded_table(examples: Labelled, signature: Signature) -> pa.Table:
    """Return coded examples as a table: float32, int32 codes."""
    columns = {c.name: examples.inputs.numeric[:, n] for n, c in enumerate(signature.numeric)}
    columns |= {c.name: examples.inputs.categorical[:, n].astype(np.int32) for n, c in enumerate(signature.categorical)}
    return pa.table({**columns, "label": examples.labels})


def openings(
    examples: Path, signature: Signature, vocabulary: Vocabulary, records: Path, parquet: Path
) -> Mapping[str, Callable[[], Callable[[], Batches]]]:
    """Return what opens each variant; that returns what starts a pass."""

    def held() -> Callable[[], Batches]:
        file = RecordFile(records)
        file.verify()
        batches = loader(Labelled(inputs=file.coded(), labels=file.labels()), batch_rows=BATCH_ROWS, is_shuffled=True)
        return lambda: batches

    def streamed() -> Callable[[], Batches]:
        file = RecordFile(records)
        file.verify()
        inputs = RecordedInputs(file, memory_bytes=BUFFER_BYTES)
        batches = StreamingLoader(inputs, batch_rows=BATCH_ROWS, is_shuffled=True, seed=1)
        return lambda: batches

    def usual() -> Callable[[], Batches]:
        arrays = of_parquet(parquet, signature)
        tensors = map(torch.from_numpy, (arrays.inputs.numeric, arrays.inputs.categorical, arrays.labels))
        batches = DataLoader(TensorDataset(*tensors), batch_size=BATCH_ROWS, shuffle=True)
        return lambda: batches

    def in_memory() -> Callable[[], Batches]:
        raw = pa.ipc.open_file(examples).read_all()
        labels = raw["label"].to_numpy().astype(np.float32)
        coded = Labelled(inputs=encode(raw, signature, vocabulary), labels=labels)
        batches = loader(coded, batch_rows=BATCH_ROWS, is_shuffled=True)
        return lambda: batches

    return {
        IN_MEMORY: in_memory,
        HELD: held,
        STREAMED: streamed,
        ROW_GROUPS: lambda: lambda: row_groups(parquet, signature),
        DATALOADER: usual,
    }


def measure(open_it: Callable[[], Callable[[], Batches]], n_rows: int) -> tuple[float, float]:
    """Return the CPU seconds of opening a variant, and of one pass after a first."""
    started = time.process_time()
    start_pass = open_it()
    opened = time.process_time()
    passes: list[float] = []
    for _ in range(3):
        begun = time.process_time()
        found = sum(len(labels) for _, _, labels in start_pass())
        passes.append(time.process_time() - begun)
        if found != n_rows:
            raise AssertionError(f"a pass had {found} rows of {n_rows}")
    return opened - started, statistics.median(passes[1:])


def write_ipc(path: Path, table: pa.Table, compression: str | None) -> None:
    """Write an Arrow IPC file."""
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)


def tfrecord_like(path: Path, examples: Labelled) -> int:
    """Write rows as TFRecord frames them, and return how many bytes.

    Each is length, checksum, a message of one packed list of numbers and one of codes and label, checksum: a tenth of
    what ``tf.train.Example`` takes with a name at every value. The checksums are CRC-32, in size those of TFRecord.
    """
    numeric = examples.inputs.numeric.astype("<f4")
    whole = np.column_stack([examples.inputs.categorical, examples.labels]).astype(np.uint8)
    with path.open("wb") as file:
        for numbers, codes in zip(numeric, whole, strict=True):
            lists = numbers.tobytes(), codes.tobytes()  # codes below 128 are varints of one byte
            message = b"".join(bytes([0x0A + 8 * n]) + _varint(len(part)) + part for n, part in enumerate(lists))
            length = struct.pack("<Q", len(message))
            file.write(
                length + struct.pack("<I", zlib.crc32(length)) + message + struct.pack("<I", zlib.crc32(message))
            )
    return path.stat().st_size


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes([*content, number])


def sizes(folder: Path, examples: Labelled, table: pa.Table) -> Mapping[str, float]:
    """Write every format of this process that is not there yet, and return its bytes a row."""
    write_ipc(folder / "lz4.arrow", table, "lz4")
    write_ipc(folder / "plain.arrow", table, None)
    n_rows = len(examples.labels)
    files = {
        "records": "examples.records",
        "Parquet, zstd": "examples.parquet",
        "Arrow IPC, lz4": "lz4.arrow",
        "Arrow IPC": "plain.arrow",
    }
    found = {name: (folder / file).stat().st_size / n_rows for name, file in files.items()}
    return {**found, "TFRecord-like": tfrecord_like(folder / "examples.tfrecord", examples) / n_rows}


def peers(python: str, parquet: Path) -> Mapping[str, Mapping[str, float]]:
    """Return bytes a row and rows a CPU second of the peers that live in an environment of their own."""
    script = Path(__file__).with_name("records_peers.py")
    command = [python, str(script), "--parquet", str(parquet), "--rows", str(SLOW_PEERS_ROWS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def run(home: Path, folder: Path, rounds: int, peers_python: str | None) -> int:
    """Measure and print; return 1 where a target is missed."""
    raw, signature = land(home)
    vocabulary = Vocabulary.of(raw, signature)
    records, parquet = folder / "examples.records", folder / "examples.parquet"
    examples = Labelled(inputs=encode(raw, signature, vocabulary), labels=raw["label"].to_numpy().astype(np.float32))
    begun = time.process_time()
    write_records(records, [raw], signature=signature, vocabulary=vocabulary, source="", coding="", work_folder=folder)
    seconds_to_write = time.process_time() - begun
    table = coded_table(examples, signature)
    pq.write_table(table, parquet, compression="zstd", row_group_size=ROW_GROUP_ROWS)
    write_ipc(folder / "raw.arrow", raw, "lz4")  # as a training set is kept
    n_rows = len(examples.labels)
    variants = openings(folder / "raw.arrow", signature, vocabulary, records, parquet)
    measured = [{name: measure(open_it, n_rows) for name, open_it in variants.items()} for _ in range(rounds)]
    opening, one_pass = (
        {name: statistics.median(times[name][which] for times in measured) for name in variants} for which in (0, 1)
    )
    print(f"{n_rows:,} rows x {len(table.column_names)} columns, batch {BATCH_ROWS}, median of {rounds} rounds")
    print(f"coding and writing the records: {seconds_to_write:.2f} CPU s")
    print(f"{'':<36} {'opening, CPU s':>14} {'k rows/CPU s a pass':>20} {f'with opening, {N_PASSES} passes':>24}")
    rate = {name: n_rows / seconds / 1000 for name, seconds in one_pass.items()}
    in_all = {name: N_PASSES * n_rows / (opening[name] + N_PASSES * one_pass[name]) / 1000 for name in variants}
    for name in variants:
        print(f"{name:<36} {opening[name]:>14.3f} {rate[name]:>20,.0f} {in_all[name]:>24,.0f}")
    slow = peers(peers_python, parquet) if peers_python else {}
    for name, found in slow.items():
        print(f"{name:<36} {'':>14} {found['rows_per_cpu_second'] / 1000:>20,.1f}")
    print(f"\n{'bytes a row on disk':<36}")
    of_disk = {
        **sizes(folder, examples, table),
        **{name.partition(",")[0]: found["bytes_per_row"] for name, found in slow.items()},
    }
    for name, size in of_disk.items():
        print(f"{name:<36} {size:>8.0f}   {size / of_disk['records']:>6.2f} x records")
    held, streamed = (in_all[name] / in_all[DATALOADER] for name in (HELD, STREAMED))
    of_memory, with_opening = rate[HELD] / rate[IN_MEMORY], in_all[HELD] / rate[IN_MEMORY]
    print(f"\n{N_PASSES} passes with opening, beside TensorDataset + DataLoader: {held:.0f} x held in memory, ", end="")
    print(f"{streamed:.0f} x streamed (least {LEAST_OF_DATALOADER:g})")
    print(f"a pass held in memory, beside index_select: {of_memory:.2f} (least {LEAST_OF_MEMORY}), ", end="")
    print(f"with its share of the opening {with_opening:.2f}")
    is_held = min(held, streamed) >= LEAST_OF_DATALOADER and of_memory >= LEAST_OF_MEMORY
    print("held" if is_held else "MISSED")
    return 0 if is_held else 1


def main() -> int:
    """Read the options, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="where the landed year is kept")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers-python", help="python of an environment with datasets, webdataset and torch")
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        home = (arguments.home or Path(folder) / "data").absolute()
        return run(home, Path(folder), arguments.rounds, arguments.peers_python)


if __name__ == "__main__":
    sys.exit(main())
