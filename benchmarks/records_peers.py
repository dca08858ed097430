"""A shuffled pass of HF datasets and of WebDataset, for ``benchmarks.records --peers-python``.

Runs in an environment with datasets, webdataset and torch, and without this project. Reads the first rows of a Parquet
file of coded examples, writes them as each peer does, and prints bytes a row and rows a CPU second as JSON.
"""

# The peers live in an environment of their own, so the project's type checker cannot see them.
# pyright: reportMissingImports=false

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

BATCH_ROWS, BUFFER_ROWS = 1024, 8192


def rows_per_cpu_second(batches: Iterable[object], n_rows: int) -> float:
    """Return how fast a pass is; the batches are tensors, or dictionaries of them."""
    started = time.process_time()
    found = 0
    for batch in batches:
        tensor = next(iter(batch.values())) if isinstance(batch, dict) else batch
        found += len(tensor[0] if isinstance(tensor, list | tuple) else tensor)
    if found != n_rows:
        raise AssertionError(f"a pass had {found} rows of {n_rows}")
    return n_rows / (time.process_time() - started)


def size_of(folder: Path) -> int:
    """Return the bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def hf_datasets(table: pa.Table, folder: Path) -> dict[str, dict[str, float]]:
    """Write an Arrow dataset of HF, and read it as an iterable with a shuffle buffer, and by index."""
    import datasets
    from torch.utils.data import DataLoader

    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(folder / "hf")
    on_disk = datasets.load_from_disk(str(folder / "hf")).with_format("torch")
    size = size_of(folder / "hf") / table.num_rows
    shuffled = on_disk.to_iterable_dataset(num_shards=16).shuffle(seed=1, buffer_size=BUFFER_ROWS)
    variants = {
        "HF datasets, iterable": shuffled.iter(BATCH_ROWS),  # behind a DataLoader it is a hundred times slower
        "HF datasets, by index": DataLoader(on_disk, batch_size=BATCH_ROWS, shuffle=True),
    }
    return {
        name: {"bytes_per_row": size, "rows_per_cpu_second": rows_per_cpu_second(batches, table.num_rows)}
        for name, batches in variants.items()
    }


def web_dataset(table: pa.Table, folder: Path) -> dict[str, dict[str, float]]:
    """Write a tar with one array a row, and read it with a shuffle buffer."""
    import webdataset

    rows = np.stack([column.to_numpy().astype(np.float32) for column in table.columns], axis=1)
    path = folder / "examples.tar"
    with webdataset.TarWriter(str(path)) as writer:
        for number, row in enumerate(rows):
            content = io.BytesIO()
            np.save(content, row)
            writer.write({"__key__": f"{number:08d}", "npy": content.getvalue()})
    batches = (
        webdataset.WebDataset(str(path), shardshuffle=False)
        .shuffle(BUFFER_ROWS, seed=1)
        .decode()
        .to_tuple("npy")
        .batched(BATCH_ROWS)
    )
    tensors = (torch.from_numpy(np.asarray(batch[0])) for batch in batches)
    size = path.stat().st_size / len(rows)
    return {"WebDataset": {"bytes_per_row": size, "rows_per_cpu_second": rows_per_cpu_second(tensors, len(rows))}}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parquet", type=Path, required=True)
    parser.add_argument("--rows", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = pq.read_table(arguments.parquet).slice(0, arguments.rows).combine_chunks()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps({**hf_datasets(table, Path(folder)), **web_dataset(table, Path(folder))}))


if __name__ == "__main__":
    main()
