"""How good a model proved to be over the days, in the words, figures and charts of its task."""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Protocol

import pyarrow as pa

from ml_assets.core.evaluation import Metrics
from ml_assets.core.reports.classification_quality import ClassificationQuality
from ml_assets.core.reports.page import Chart
from ml_assets.core.reports.quality_parts import Beside, Figure
from ml_assets.core.reports.regression_quality import RegressionQuality
from ml_assets.core.reports.time_axis import TimeAxis
from ml_assets.core.tasks import AnyMetrics, Measure

__all__ = ["Beside", "DailyQuality", "Figure", "quality_of"]


class DailyQuality(Protocol):
    """What a page says of a model's quality; ``labelled`` are days of ``monitoring.performance`` that have labels."""

    @property
    def columns(self) -> Mapping[str, str]:
        """The titles of a table of days, by column of ``monitoring.performance``."""
        ...

    @property
    def holdout_words(self) -> str:
        """What the model showed on its holdout, in one line."""
        ...

    @property
    def measures(self) -> Sequence[Measure]:
        """What is drawn over the days, the most telling first."""
        ...

    def figures(self, labelled: pa.Table, days: str) -> Sequence[Figure]:
        """Return the numbers at the top of the page; ``days`` says in words which days these are."""
        ...

    def charts(self, labelled: pa.Table, axis: TimeAxis, beside: Beside, rules: Sequence[date] = ()) -> Sequence[Chart]:
        """Return the charts over the days; ``rules`` are the days on which another model took over."""
        ...

    def curve(self, labelled: pa.Table) -> Chart | None:
        """Draw what was predicted beside what happened over the newest days."""
        ...

    def written(self, value: float | None) -> str:
        """Write a prediction for people."""
        ...

    def cell(self, value: float | None) -> str:
        """Write a figure of one day for a table."""
        ...


def quality_of(holdout: AnyMetrics, unit: str | None) -> DailyQuality:
    """Return what is said of a model that showed this on its holdout."""
    if isinstance(holdout, Metrics):
        return ClassificationQuality(holdout=holdout)
    return RegressionQuality(holdout=holdout, unit=unit)
