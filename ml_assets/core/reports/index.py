"""The page of all use cases: how each is on its newest day, and where to read on."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from ml_assets.core.reports.page import checked_links, render
from ml_assets.core.reports.verdict import Level

_DAY_PAGE = re.compile(r"reports/(?P<use_case>[a-z0-9_]+)/(?P<day>\d{4}-\d{2}-\d{2})\.html")
_SCORE_PAGE = re.compile(r"reports/(?P<use_case>[a-z0-9_]+)/ml-test-score-(?P<day>\d{4}-\d{2}-\d{2})\.html")


@dataclass(frozen=True, kw_only=True)
class IndexEntry:
    """A use case on its newest day: how it is, in words, and its pages."""

    use_case: str
    day: date
    level: Level
    words: str
    newest: str
    overview: str
    score: str | None


def newest_pages(paths: Sequence[str]) -> Mapping[str, date]:
    """Return the newest day of each use case that has the page of a day.

    >>> newest_pages(["reports/delay/2013-07-01.html", "reports/delay/2013-07-02.html", "reports/delay/overview.html"])
    {'delay': datetime.date(2013, 7, 2)}
    """
    return _newest(paths, _DAY_PAGE)


def newest_scores(paths: Sequence[str]) -> Mapping[str, date]:
    """Return the newest day of each use case that has a page of its ML Test Score.

    >>> newest_scores(["reports/delay/2013-07-02.html", "reports/delay/ml-test-score-2013-07-01.html"])
    {'delay': datetime.date(2013, 7, 1)}
    """
    return _newest(paths, _SCORE_PAGE)


def index_page(
    newest: Mapping[str, date], alarms: Mapping[str, Sequence[str]] | None, scored: Mapping[str, date]
) -> str:
    """Write the index.

    Args:
        newest: the newest day of each use case that has a page.
        alarms: the severities that stand on that day; None where none are judged.
        scored: the day of its newest ML Test Score, where there is one.
    """
    entries = [
        _entry(name, day, None if alarms is None else alarms.get(name, ()), scored.get(name))
        for name, day in sorted(newest.items())
    ]
    return render("index.html", entries=entries, links=checked_links({}))


def _newest(paths: Sequence[str], named: re.Pattern[str]) -> Mapping[str, date]:
    pages = (page for path in sorted(paths) if (page := named.fullmatch(path)))
    return {page["use_case"]: date.fromisoformat(page["day"]) for page in pages}


def _entry(use_case: str, day: date, severities: Sequence[str] | None, scored: date | None) -> IndexEntry:
    if severities is None:
        level, words = "unknown", "Not judged yet"
    elif not severities:
        level, words = "good", "All is well"
    else:
        n_severe = sum(severity == "severe" for severity in severities)
        level, words = (
            ("bad" if n_severe else "warning"),
            f"{len(severities)} alarm{'s' if len(severities) > 1 else ''}",
        )
        words += f", {n_severe} severe" if n_severe else ""
    return IndexEntry(
        use_case=use_case,
        day=day,
        level=level,
        words=words,
        newest=f"{use_case}/{day}.html",
        overview=f"{use_case}/overview.html",
        score=f"{use_case}/ml-test-score-{scored}.html" if scored else None,
    )
