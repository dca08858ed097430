"""The drift report of Evidently or of NannyML, for ``benchmarks.drift_report --peers-python``.

Runs in an environment of its own, without this project (``pip install evidently nannyml pandas==2.2.3``): ``PEER
FOLDER``, where lie ``training.parquet`` and ``day.parquet``. Prints CPU seconds (user and system) and the largest
memory as JSON.
"""

# The peers live in an environment of their own, so the project's type checker cannot see them.
# pyright: reportMissingImports=false

import json
import os
import resource
import sys
from importlib import import_module
from pathlib import Path

os.environ["DO_NOT_TRACK"] = "1"
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"

import pandas as pd


def _read(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_parquet(folder / f"{name}.parquet").drop(columns="partition_on")


def with_evidently(folder: Path) -> str:
    """Its preset of data drift, with the tests it chooses itself for so many rows."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frames = [_read(folder, name) for name in ("day", "training")]
    texts = [name for name in frames[0] if frames[0][name].dtype == object]
    numbers = [name for name in frames[0] if name not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    day, training = (Dataset.from_pandas(frame, data_definition=definition) for frame in frames)
    snapshot = Report([DataDriftPreset()]).run(day, training)
    return f"{len(snapshot.dict()['metrics'])} metrics"


def with_nannyml(folder: Path) -> str:
    """Univariate drift: Jensen-Shannon of all, Kolmogorov-Smirnov of numbers, chi-square of categories."""
    import nannyml as nml

    training = _read(folder, "training")
    texts = [name for name in training if training[name].dtype == object]
    calculator = nml.UnivariateDriftCalculator(
        column_names=list(training),
        treat_as_categorical=texts,
        chunk_number=1,
        continuous_methods=["jensen_shannon", "kolmogorov_smirnov"],
        categorical_methods=["jensen_shannon", "chi2"],
    )
    calculator.fit(training)
    return f"{calculator.calculate(_read(folder, 'day')).to_df().shape[1]} figures"


PEERS = {"evidently": with_evidently, "nannyml": with_nannyml}


def main() -> None:
    """Measure and print."""
    peer, folder = sys.argv[1], Path(sys.argv[2])
    # Imports are no part of the work.
    of_peer = import_module(peer)
    if peer == "evidently":
        import_module("evidently.presets")
    before = resource.getrusage(resource.RUSAGE_SELF)
    told = PEERS[peer](folder)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    version = getattr(of_peer, "__version__", "")
    # Not ru_maxrss: it survives exec, so that a child is told of the memory its parent had.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"cpu": cpu, "mb": peak, "told": f"{told} {version}"}))


if __name__ == "__main__":
    main()
