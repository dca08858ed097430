"""Print the figures, one table each: ``python -m benchmarks`` all of them, ``python -m benchmarks NAME...`` some.

Each benchmark has a process of its own, so that none pays for another's memory or thread pools. Options are for the
single commands: ``python -m benchmarks.model_quality --home FOLDER``.
"""

import argparse
import subprocess
import sys
import tempfile

BENCHMARKS = {
    "model_quality": "every use case on October to December 2013, trained on the months before",
    "point_in_time": "the point-in-time join beside its peers and the cost of reading and writing",
    "records": "feeding a training from disk beside Parquet, WebDataset and HF datasets",
    "training_loader": "one training epoch beside a bare loop",
    "segments": "models trained a minute with one per segment, what they gain and cost",
    "tuning": "what a search costs beside its trainings, by where the study is kept",
    "landing": "ten million rows of a raw table, beside pandas and plain pyarrow",
    "drift_alarms": "how often drift alarms are false, how soon a shift is found, beside the rules of others",
    "replay_year": "a whole year lived day by day by every use case, and what retraining was worth",
    "data_quality": "false alarms and changes of unit on 2013, and what judging a day costs",
    "drift_report": "the daily drift report beside one scan, scipy, NannyML and Evidently",
    "false_retrainings": "trainings that are asked for though nothing has changed, and how soon a change is answered",
    "running_day": "loading the code location; one more day with one use case, and with all",
}


def main() -> int:
    """Run the benchmarks asked for; return 1 where one failed or missed its target."""
    known = "\n".join(f"  {name:<16} {what}" for name, what in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Print performance figures.\n\n{known}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="which; all unless given")
    names = parser.parse_args().names or list(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        print(f"\n== {name}: {BENCHMARKS[name]}", flush=True)
        if _run(name):
            failed.append(name)
    if failed:
        print(f"\nfailed or missed: {', '.join(failed)}")
    return 1 if failed else 0


def _run(name: str) -> int:
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    with tempfile.TemporaryDirectory() as folder:
        if name == "point_in_time":
            command += ["--folder", folder]
        return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
