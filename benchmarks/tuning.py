"""What the search itself costs beside the trainings: CPU time per trial, by where the study is kept.

    python -m benchmarks.tuning [--trials 100]

A trial is what `tune` does around a training: count, ask for 5 parameters, report 3 epochs, record the result. Prints
CPU milliseconds (user and system) per trial, medians of interleaved rounds. The limit of 5 is for the journal file.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from ml_assets.backends.optuna_studies import OptunaStudies
from ml_assets.core.search_spaces import DEFAULT_SPACES
from ml_assets.core.studies import SearchSettings, Study, Trial
from ml_assets.core.trainers.lightning import LightningTrainer
from ml_assets.core.tuning import Budget, search

LIMIT_MILLISECONDS = 5.0


def cpu_milliseconds_per_trial(url: str, n_trials: int) -> float:
    """Return the CPU time of one trial, without any training, in a new study of this storage."""
    space = DEFAULT_SPACES["lightning"]
    defaults = LightningTrainer().resolve({})
    study = OptunaStudies(url).open(
        f"benchmark-{time.time_ns()}",
        space=space,
        first={name: defaults[name] for name in space},
        settings=SearchSettings(seed=1),
    )

    def no_training(study: Study, trial: Trial) -> None:
        for epoch in range(1, 4):
            study.report(trial, epoch=epoch, loss=float(trial.parameters["dropout"]))
        study.complete(trial, float(trial.parameters["dropout"]))

    started = time.process_time()
    n_own = search(
        study,
        no_training,
        budget=Budget(n_trials=n_trials, seconds=3600),
        seconds_now=time.monotonic,
        on_trial=lambda trial, n_taken: None,
    )
    assert n_own == n_trials
    return 1000 * (time.process_time() - started) / n_trials


def main() -> int:
    """Measure and print; return 1 where the limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        urls = {
            "in memory": "memory://",
            "journal file (the product)": Path(folder).as_uri(),
            "SQLite": f"sqlite:///{folder}/studies.sqlite",
        }
        cpu_milliseconds_per_trial("memory://", 20)  # the first trials of a process pay for its imports
        rounds = [
            {name: cpu_milliseconds_per_trial(url, arguments.trials) for name, url in urls.items()}
            for _ in range(arguments.rounds)
        ]
    medians = {name: statistics.median(costs[name] for costs in rounds) for name in urls}
    n_parameters = len(DEFAULT_SPACES["lightning"])
    print(f"a study of {arguments.trials} trials, TPE over {n_parameters} parameters, 3 epochs reported each")
    for name, milliseconds in medians.items():
        print(f"{name:<28} {milliseconds:6.2f} CPU ms a trial")
    found = medians["journal file (the product)"]
    is_held = found <= LIMIT_MILLISECONDS
    print(f"journal file: {found:.2f} (limit {LIMIT_MILLISECONDS:g}): {'held' if is_held else 'MISSED'}")
    return 0 if is_held else 1


if __name__ == "__main__":
    sys.exit(main())
