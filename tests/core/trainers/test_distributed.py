"""Two processes train one model together: the same weights in both, and the quality of one process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ml_assets.backends.environments import Environment
from ml_assets.core.encoding import Coded, Input, Signature, Vocabulary
from ml_assets.core.errors import BadInput, InvalidDeclaration, ProcessesDisagree
from ml_assets.core.trainers import Labelled, trainer_named
from ml_assets.core.trainers.launch import Launch, process_group
from ml_assets.core.trainers.lightning import FittedNetwork, LightningTrainer, loader
from ml_assets.core.trainers.resuming import refuse_disagreement

SETTINGS = {"layer_sizes": "16", "embedding_size": 4, "n_epochs": 6, "learning_rate": 0.02, "patience": 6}
SIGNATURE = Signature(
    numeric=tuple(Input(name=name, view="v", description="") for name in ("wind_speed_mph", "visibility_miles")),
    categorical=(Input(name="origin", view="v", description=""),),
)
VOCABULARY = Vocabulary(values={"origin": ("EWR", "JFK", "LGA")})
# Nats of validation log loss. Five seeds of one process span 0.316 to 0.335: the band is half of that.
BAND = 0.01


def _examples(n: int, seed: int) -> Labelled:
    """True where the wind is missing or above 20 at origin 2, with 1 of 10 turned round."""
    draw = np.random.default_rng(seed)
    wind = draw.uniform(0, 40, n)
    wind[draw.random(n) < 0.2] = np.nan
    origin = draw.integers(2, 5, n)
    label = ((np.isnan(wind) | (wind > 20)) & (origin == 2)) ^ (draw.random(n) < 0.1)
    numeric = np.stack([wind, draw.normal(size=n)], axis=1).astype(np.float32)
    return Labelled(inputs=Coded(numeric=numeric, categorical=origin[:, None]), labels=label.astype(np.float32))


def _fit(launch: Launch, work: Path, *, seed: int = 3, told: list[int] | None = None) -> FittedNetwork:
    def on_epoch(number: int, metrics: object) -> None:
        if told is not None:
            told.append(number)

    return LightningTrainer(launch).fit(
        _examples(4001, 1),  # not a multiple of two
        _examples(1000, 2),
        signature=SIGNATURE,
        vocabulary=VOCABULARY,
        hyperparameters=SETTINGS,
        seed=seed,
        warm_start=None,
        on_epoch=on_epoch,
        work_folder=work,
    )


def take_part(folder: Path) -> None:
    """Be one of the processes: train, write down what came out, and train again from the checkpoint."""
    launch = Environment.current().launch
    with process_group(launch):
        fitted = _fit(launch, folder / "work")
        told: list[int] = []
        again = _fit(launch, folder / "work", told=told)
    assert told == []
    assert all(np.array_equal(array, again.weights()[name]) for name, array in fitted.weights().items())
    weights = {name: array.tolist() for name, array in fitted.weights().items()}
    history = [[epoch.train_loss, epoch.validation_loss] for epoch in fitted.history]
    (folder / f"{launch.rank}.json").write_text(json.dumps({"weights": weights, "history": history}))


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights_and_the_quality_of_one(tmp_path: Path):
    script = tmp_path / "take_part.py"
    here = str(Path(__file__).parent)
    script.write_text(
        f"import sys, pathlib\nsys.path.insert(0, {here!r})\nimport test_distributed\n"
        f"test_distributed.take_part(pathlib.Path({str(tmp_path)!r}))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ML_ASSETS_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]

    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    alone = [_fit(Launch(), tmp_path / f"alone-{seed}", seed=seed) for seed in (3, 4, 5)]
    losses = [min(epoch.validation_loss for epoch in fitted.history) for fitted in alone]
    found = min(loss for _, loss in first["history"])
    assert min(losses) - BAND < found < max(losses) + BAND
    # Not the same bits: each process switches off other units.
    assert first["weights"] != {name: array.tolist() for name, array in alone[0].weights().items()}


def test_the_shares_of_every_batch_are_equally_large_and_together_the_batch_of_one_process():
    examples = _examples(1003, 1)

    def batches(rank: int, n: int) -> list[torch.Tensor]:
        loaded = loader(examples, batch_rows=100, is_shuffled=True, seed=5, share=(rank, n))
        loaded.set_epoch(2)
        return [numeric[:, 1] for numeric, _, _ in loaded]

    whole, shares = batches(0, 1), [batches(rank, 2) for rank in (0, 1)]
    assert [len(batch) for batch in shares[0]] == [len(batch) for batch in shares[1]] == [50] * 10 + [1]
    for number, batch in enumerate(whole[:10]):
        assert torch.equal(torch.stack([shares[0][number], shares[1][number]], dim=1).flatten(), batch)
    # Of the last three rows two are shared out, and the third is left out of this pass.
    assert torch.cat([shares[0][10], shares[1][10]]).tolist() == whole[10][:2].tolist()


def test_an_epoch_has_an_order_of_its_own_whatever_was_read_before():
    def order(number: int, n_passes_before: int) -> list[float]:
        loaded = loader(_examples(300, 1), batch_rows=64, is_shuffled=True, seed=5)
        for _ in range(n_passes_before):
            list(loaded)
        loaded.set_epoch(number)
        return torch.cat([numeric[:, 1] for numeric, _, _ in loaded]).tolist()

    assert order(3, 0) == order(3, 2) != order(4, 0)


def test_processes_that_would_go_on_from_different_epochs_are_refused(monkeypatch: pytest.MonkeyPatch):
    def tell(found: list[torch.Tensor], own: torch.Tensor) -> None:
        """Be the other process, which has lost its checkpoint of the second epoch."""
        for place, number in zip(found, (own, own.clamp(max=1)), strict=True):
            place.copy_(number)

    monkeypatch.setattr(torch.distributed, "all_gather", tell)
    with pytest.raises(ProcessesDisagree, match=r"after the epochs \[2, 1\], by rank; expected the same everywhere"):
        refuse_disagreement(Launch(n_per_node=2), 2)
    refuse_disagreement(Launch(n_per_node=2), 1)


TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5"}


def test_the_launch_is_read_from_what_torchrun_says_and_from_nothing_else():
    assert Environment.of(TORCHRUN).launch == Launch(n_nodes=2, n_per_node=4, rank=5)
    # A cluster sets some of these names for purposes of its own.
    assert Environment.of({"WORLD_SIZE": "8", "RANK": "5"}).launch == Launch()


@pytest.mark.parametrize(
    "changed", [{"LOCAL_WORLD_SIZE": "3"}, {"RANK": "eight"}, {"RANK": "8"}, {"LOCAL_WORLD_SIZE": "0"}]
)
def test_a_launch_that_cannot_be_is_refused(changed):
    with pytest.raises(BadInput, match=r"expected|torchrun"):
        Environment.of({**TORCHRUN, **changed})


def test_a_trainer_of_one_process_is_not_launched_in_two():
    with pytest.raises(InvalidDeclaration, match="2 processes were launched, and the trainer 'sklearn' trains in one"):
        trainer_named("sklearn", Launch(n_per_node=2))
