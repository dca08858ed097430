"""The drift report of Evidently or of NannyML, for ``benchmarks.drift_report --peers-python``.

Runs in an environment with evidently, nannyml and pandas, and without this project: ``PEER PARQUET``. The rows are
training and day at once. Prints CPU seconds (user and system) and the largest memory as JSON.
"""

# The peers live in an environment of their own, so the project's type checker cannot see them.
# pyright: reportMissingImports=false

import json
import os
import resource
import sys
from pathlib import Path

os.environ["DO_NOT_TRACK"] = "1"
os.environ["NML_DISABLE_USAGE_LOGGING"] = "1"

import pandas as pd


def evidently(path: str) -> str:
    """Its preset of data drift, with the tests it chooses itself for so many rows."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    frame = pd.read_parquet(path).drop(columns="partition_on")
    texts = [name for name in frame if frame[name].dtype == object]
    numbers = [name for name in frame if name not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    training, day = (Dataset.from_pandas(frame.copy(), data_definition=definition) for _ in range(2))
    snapshot = Report([DataDriftPreset()]).run(day, training)
    return f"{len(snapshot.dict()['metrics'])} metrics"


def nannyml(path: str) -> str:
    """Univariate drift: Jensen-Shannon of all, Kolmogorov-Smirnov of numbers, chi-square of categories."""
    import nannyml as nml

    frame = pd.read_parquet(path).drop(columns="partition_on")
    texts = [name for name in frame if frame[name].dtype == object]
    calculator = nml.UnivariateDriftCalculator(
        column_names=list(frame),
        treat_as_categorical=texts,
        chunk_number=1,
        continuous_methods=["jensen_shannon", "kolmogorov_smirnov"],
        categorical_methods=["jensen_shannon", "chi2"],
    )
    calculator.fit(frame)
    return f"{calculator.calculate(frame).to_df().shape[1]} figures"


def main() -> None:
    """Measure and print."""
    peer, path = sys.argv[1:]
    if peer == "evidently":
        import evidently as of_peer
        import evidently.presets
    else:
        import nannyml as of_peer
    before = resource.getrusage(resource.RUSAGE_SELF)
    told = {"evidently": evidently, "nannyml": nannyml}[peer](path)
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    version = getattr(of_peer, "__version__", "")
    # Not ru_maxrss: it survives exec, so that a child is told of the memory its parent had.
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(json.dumps({"cpu": cpu, "mb": peak, "told": f"{told} {version}"}))


if __name__ == "__main__":
    main()
