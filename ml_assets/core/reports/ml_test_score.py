"""The page on the ML Test Score of a use case: what each of the 28 tests found, and what takes its point away."""

from collections.abc import Mapping

from ml_assets.core.ml_test_score.findings import N_TESTS_OF_A_SECTION, SECTIONS
from ml_assets.core.ml_test_score.score import MlTestScore, lost
from ml_assets.core.reports.page import checked_links, render

_TITLES = {
    "data": "Features and data",
    "model": "Model development",
    "infrastructure": "Infrastructure",
    "monitoring": "Monitoring",
}
_WORDS = {"automated": "automated", "manual": "by hand", "none": "no point"}
_MARKS = {"automated": "pass", "manual": "warn", "none": "fail"}
_EXCEPTIONAL, _STRONG = 5.0, 3.0


def ml_test_score_report(
    score: MlTestScore, *, question: str, before: Mapping[str, float], links: Mapping[str, str]
) -> str:
    """Write the page as one self-contained HTML file; the same input gives the same bytes.

    ``before`` are the points of each test when the use case was last scored, see ``points_before``.
    """
    weakest = min(SECTIONS, key=lambda section: score.sums[section])
    level = "good" if score.score > _EXCEPTIONAL else "warning" if score.score > _STRONG else "bad"
    return render(
        "ml_test_score.html",
        use_case=score.use_case,
        question=question,
        day=score.day,
        score=points(score.score),
        readiness=score.readiness,
        level=level,
        weakest=_TITLES[weakest].lower(),
        most=N_TESTS_OF_A_SECTION,
        sums={_TITLES[section]: points(total) for section, total in score.sums.items()},
        sections=[(_TITLES[section], points(score.sums[section]), score.of(section)) for section in SECTIONS],
        by_hand=[result for result in score.results if result.test.hands],
        lost=lost(score, before),
        words=_WORDS,
        marks=_MARKS,
        points=points,
        links=checked_links(links),
    )


def score_markdown(score: MlTestScore) -> str:
    """Write the score as a table for the Dagster UI: a line per test, with what it found."""
    lines = ["| | test | points | evidence |", "|---|---|---|---|"]
    for section in SECTIONS:
        lines.append(f"| | **{_TITLES[section]}** | **{points(score.sums[section])}** | |")
        lines += [
            f"| {one.test.number} | {_cell(one.test.name)} | {points(one.finding.points)} | "
            f"{_cell(one.finding.evidence)} |"
            for one in score.of(section)
        ]
    return "\n".join(lines)


def points(value: float) -> str:
    """Write points: halves are halves.

    >>> points(6.0), points(5.5)
    ('6', '5.5')
    """
    return f"{value:g}"


def _cell(text: str) -> str:
    """Keep text in its cell, and what looks like markup as text: evidence quotes what is in the data."""
    inert = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return inert.replace("|", "\\|").replace("`", "\\`").replace("[", "\\[").replace("\n", " ")
