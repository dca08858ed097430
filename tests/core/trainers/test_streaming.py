"""Trainers that read batches learn the same from a file larger than the memory as from arrays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary
from ml_assets.core.record_writer import write_records
from ml_assets.core.records import RecordedInputs, RecordFile
from ml_assets.core.trainers import Labelled, trainer_named
from ml_assets.core.trainers.lightning import loader
from ml_assets.core.trainers.slices import SlicingLoader
from ml_assets.core.trainers.streaming import StreamingLoader

SIGNATURE = Signature(
    numeric=(Input(name="wind_speed_mph", view="v", description=""),),
    categorical=(Input(name="origin", view="v", description=""),),
)
VOCABULARY = Vocabulary(values={"origin": ("EWR", "JFK", "LGA")})
N_ROWS, ROW_BYTES = 3000, 4 + 8 + 4
SETTINGS = {"layer_sizes": "16", "n_epochs": 5, "learning_rate": 0.03, "embedding_size": 3}


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> RecordFile:
    """True where the wind is above 20 at EWR; the winds rise from the first row to the last."""
    folder = tmp_path_factory.mktemp("records")
    draw = np.random.default_rng(1)
    wind = np.sort(draw.uniform(0, 40, N_ROWS))
    origin = draw.choice(["EWR", "JFK", "LGA"], N_ROWS)
    table = pa.table({"wind_speed_mph": wind, "origin": origin, "label": (wind > 20) & (origin == "EWR")})
    write_records(
        folder / "train.records",
        [table],
        signature=SIGNATURE,
        vocabulary=VOCABULARY,
        source="s",
        coding="c",
        work_folder=folder,
        block_rows=128,
    )
    return RecordFile(folder / "train.records")


@pytest.fixture
def streamed(records) -> Labelled:
    """Two thirds of the rows fit the memory."""
    return Labelled(inputs=RecordedInputs(records, memory_bytes=2000 * ROW_BYTES), labels=records.labels())


@pytest.fixture
def whole(records) -> Labelled:
    return Labelled(inputs=records.coded(), labels=records.labels())


def _winds(batches: SlicingLoader | StreamingLoader) -> np.ndarray:
    return np.concatenate([numeric[:, 0].numpy() for numeric, _, _ in batches])


def test_a_loader_of_a_file_yields_the_tensors_of_a_loader_of_arrays(streamed, whole):
    of_file, of_arrays = (loader(examples, batch_rows=64, is_shuffled=False) for examples in (streamed, whole))
    assert isinstance(of_file, StreamingLoader)
    assert len(of_file) == len(of_arrays) == 47
    for found, expected in zip(of_file, of_arrays, strict=True):
        assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(found, expected, strict=True))


def test_every_pass_has_an_order_of_its_own_that_its_number_gives_again(streamed):
    batches = StreamingLoader(streamed.inputs, batch_rows=64, is_shuffled=True, seed=3)
    first, second = _winds(batches), _winds(batches)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first), np.sort(second))
    batches.set_epoch(1)
    assert np.array_equal(_winds(batches), first)
    assert not np.array_equal(_winds(StreamingLoader(streamed.inputs, batch_rows=64, is_shuffled=True, seed=4)), first)


def test_processes_that_share_a_pass_make_as_many_steps_on_rows_of_their_own(streamed):
    shares = [
        StreamingLoader(streamed.inputs, batch_rows=64, is_shuffled=True, seed=3, share=(rank, 4)) for rank in range(4)
    ]
    winds = [_winds(share) for share in shares]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [12] * 4  # 750 rows each
    assert np.array_equal(np.sort(np.concatenate(winds)), streamed.inputs.records.coded().numeric[:, 0])


@pytest.mark.parametrize("name", ["lightning", pytest.param("keras", marks=pytest.mark.slow)])
def test_a_trainer_learns_the_rule_from_batches_without_decoding_the_file(name, streamed, whole):
    if name == "keras":
        pytest.importorskip("keras")
    draw = np.random.default_rng(9)
    wind, origin = draw.uniform(0, 40, 2000), draw.integers(2, 5, 2000)
    fresh = Coded(numeric=wind[:, None].astype(np.float32), categorical=origin[:, None])
    validation = Labelled(inputs=fresh, labels=((wind > 20) & (origin == 2)).astype(np.float32))
    fits = (
        trainer_named(name).fit(
            train,
            validation,
            signature=SIGNATURE,
            vocabulary=VOCABULARY,
            hyperparameters=SETTINGS,
            seed=3,
            warm_start=None,
            on_epoch=lambda epoch, metrics: None,
            work_folder=Path("unused"),
        )
        for train in (streamed, streamed, whole)
    )
    first, again, of_arrays = ({"answers": fit.predict(fresh), "history": fit.history} for fit in fits)
    assert np.array_equal(first["answers"], again["answers"])
    assert "numeric" not in vars(streamed.inputs)
    right = [np.mean((found["answers"] > 0.5) == (validation.labels == 1)) for found in (first, of_arrays)]
    assert min(right) > 0.95
    # The mean loss over the parts of a file is one over all its rows, as that over arrays is.
    losses = [found["history"][-1].train_loss for found in (first, of_arrays)]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)
