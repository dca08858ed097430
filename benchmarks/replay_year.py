"""The year 2013 lived day by day by every use case, in at most 15 minutes on two quiet cores.

    python -m benchmarks.replay_year [--home FOLDER] [--docs]

Runs ``ml-assets replay --from 2013-01-01 --to 2013-12-31`` in a fresh folder, prints wall and CPU time by part, and
exits with 1 beyond 15 minutes. With ``--home`` the replay is kept there; a finished one is not lived again, and its own
time counts. ``--docs`` writes the figures of docs/a_year.md, and its picture, from that record.
"""

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from ml_assets.backends.environments import Environment
from ml_assets.core.days import DayRange
from ml_assets.core.replays.rivals import BASELINE, LATER, ONCE
from ml_assets.core.replays.story import Story
from ml_assets.core.replays.worth import periods_of
from ml_assets.core.reports.charts import chart_png
from ml_assets.core.reports.replay import charts_of, worth_words
from ml_assets.replaying import Replay

YEAR = DayRange(first=date(2013, 1, 1), last=date(2013, 12, 31))
MOST_SECONDS, N_AT_ONCE = 900.0, 2
PAGE = Path(__file__).parents[1] / "docs" / "a_year.md"
PICTURE = PAGE.with_name("a_year.png")
_BETWEEN = r"(<!-- figures: {name} -->\n).*?(<!-- end of figures -->)"


def main() -> int:
    """Live the year and print what it took; return 1 where it took too long."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--home", type=Path, help="keep the replay in this folder, and use one that is finished there")
    parser.add_argument("--docs", action="store_true", help="write the figures of docs/a_year.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {
            "ML_ASSETS_HOME": str((arguments.home or Path(folder)).absolute()),
            "ML_ASSETS_TRACKER": "disabled",
            "OMP_NUM_THREADS": "1",
        }
        found = Replay(Environment.current(), YEAR)
        stories = _lived(found)
        seconds = sum(found.manifest.wall_seconds)
        _print(stories, seconds)
        if arguments.docs:
            write_docs(stories, seconds)
    return 0 if seconds <= MOST_SECONDS else 1


def _lived(found: Replay) -> Sequence[Story]:
    if found.manifest.is_finished:
        return sorted((life.tell() for life in found.lives), key=lambda story: story.use_case.name)
    started = time.perf_counter()
    found.land(lambda _event: None)
    print(f"landed in {time.perf_counter() - started:.0f} s")
    found.live(lambda _lived: None, n_at_once=N_AT_ONCE)
    stories = found.conclude()
    found.took(time.perf_counter() - started)
    return stories


def _print(stories: Sequence[Story], seconds: float) -> None:
    parts = dict.fromkeys(part for story in stories for part in story.cpu_seconds)
    print(f"{'CPU s':<16}" + "".join(f"{part:>13}" for part in parts))
    for story in stories:
        print(f"{story.use_case.name:<16}" + "".join(f"{story.cpu_seconds.get(part, 0.0):>13.1f}" for part in parts))
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(f"{sum(one.ru_utime + one.ru_stime for one in spent):.0f} CPU s in this call, landing included")
    verdict = "held" if seconds <= MOST_SECONDS else "MISSED"
    print(f"the year: {seconds:.0f} s wall (limit {MOST_SECONDS:.0f} on two quiet cores): {verdict}")


def write_docs(stories: Sequence[Story], seconds: float) -> None:
    """Replace the figures of docs/a_year.md, between their marks, and its picture; the words around them stay."""
    tables = {"worth": _worth_table(stories), "quarters": _quarters_table(stories), "costs": _costs(stories, seconds)}
    text = PAGE.read_text()
    for name, table in tables.items():
        pattern = _BETWEEN.format(name=name)
        if not re.search(pattern, text, flags=re.DOTALL):
            raise SystemExit(f"{PAGE} has no place for the figures {name!r}")
        text = re.sub(pattern, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    PAGE.write_text(text)
    shown = max(stories, key=lambda story: sum(lived.outcome == "promoted" for lived in story.days))
    PICTURE.write_bytes(chart_png(next(iter(charts_of(shown, YEAR).values())), scale=2.0))
    print(f"wrote {PAGE} and {PICTURE} ({PICTURE.stat().st_size / 1000:.0f} kB, of {shown.use_case.name})")


def _worth_table(stories: Sequence[Story]) -> str:
    rows = ["| use case | first predicted | trainings | against training once | once, on a quarter | simple baseline |"]
    rows.append("|---|---|---|---|---|---|")
    for story in stories:
        outcomes = [lived.outcome for lived in story.days if lived.outcome]
        first = next((str(lived.partition_on) for lived in story.days if lived.model_version), "never")
        tried = f"{len(outcomes)}, {outcomes.count('promoted')} promoted"
        gains = " | ".join(worth_words(story, rival) for rival in (ONCE, LATER, BASELINE))
        rows.append(f"| `{story.use_case.name}` | {first} | {tried} | {gains} |")
    return "\n".join(rows)


def _quarters_table(stories: Sequence[Story]) -> str:
    names = [name for name, _ in periods_of(YEAR)][:-1]
    rows = [f"| use case | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for story in stories:
        gains = [worth_words(story, ONCE, period=name) for name in names]
        rows.append(f"| `{story.use_case.name}` | {' | '.join(gains)} |")
    return "\n".join(rows)


def _costs(stories: Sequence[Story], seconds: float) -> str:
    parts = [f"`{s.use_case.name}` {sum(s.cpu_seconds.values()) / 60:.1f}" for s in stories]
    trained = sum(story.cpu_seconds.get("training", 0.0) for story in stories) / 60
    alarmed = [f"`{s.use_case.name}` {sum(bool(one.n_alarms) for one in s.days)}" for s in stories]
    severe = [f"`{s.use_case.name}` {sum(bool(one.n_severe) for one in s.days)}" for s in stories]
    return (
        f"The year took {seconds:.0f} s of wall time on {os.cpu_count()} cores. CPU minutes of the lives: "
        f"{', '.join(parts)}; {trained:.1f} of them went into training and judging.\n\n"
        f"Days with an alarm: {', '.join(alarmed)}; with a severe one: {', '.join(severe)}."
    )


if __name__ == "__main__":
    sys.exit(main())
