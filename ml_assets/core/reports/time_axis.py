"""The days that every figure of a page has along x."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property

from markupsafe import Markup

from ml_assets.core.reports.svg import element, percent_of_width

# On a phone half of the dates have room.
_MOST_DATES = 12
AXIS_HEIGHT = 20


@dataclass(frozen=True, kw_only=True)
class TimeAxis:
    """The local days from first to last, each as wide as any other."""

    first: date
    last: date

    @cached_property
    def n_days(self) -> int:
        """How many days there are."""
        return (self.last - self.first).days + 1

    @cached_property
    def days(self) -> Sequence[date]:
        """Every day, in order."""
        return [self.first + timedelta(days=i) for i in range(self.n_days)]

    def place(self, day: date) -> int:
        """Return how many days lie before this one; negative for one before the first."""
        return (day - self.first).days

    def left(self, day: date) -> float:
        """Return where a day begins, as a share of the width."""
        return self.place(day) / self.n_days

    def centre(self, day: date) -> float:
        """Return where the middle of a day is, as a share of the width."""
        return (self.place(day) + 0.5) / self.n_days

    @cached_property
    def dates(self) -> Sequence[date]:
        """The days that are named: at most twelve, Mondays or the first of months where there are many.

        >>> march = TimeAxis(first=date(2013, 3, 1), last=date(2013, 4, 30))
        >>> [f"{day:%a %-d %b}" for day in march.dates][:3]
        ['Mon 4 Mar', 'Mon 11 Mar', 'Mon 18 Mar']
        """
        if self.n_days <= _MOST_DATES:
            return self.days
        if self.n_days <= 2 * _MOST_DATES:
            return self.days[::-2][::-1]
        mondays = [day for day in self.days if day.weekday() == 0]
        if len(mondays) <= _MOST_DATES:
            return mondays
        months = [day for day in self.days if day.day == 1]
        return mondays[::2] if len(mondays) <= 2 * _MOST_DATES and len(months) < 4 else months

    def rules(self, days: Sequence[date], kind: str) -> Sequence[Markup]:
        """Return upright lines where these days begin, those outside left out."""
        places = [percent_of_width(self.left(day)) for day in days if self.first < day <= self.last]
        return [element("line", x1=x, x2=x, y1="0", y2="100%", class_=kind) for x in places]

    def labels(self) -> Markup:
        """Return the dates below or above figures."""
        marks = list[Markup]()
        many = len(self.dates) > _MOST_DATES // 2
        for i, day in enumerate(reversed(self.dates)):
            x = self.centre(day)
            anchor = "start" if x < 0.04 else "end" if x > 0.96 else "middle"
            words = f"{day:%-d %b}" if day.month > 1 or day.day > 1 else f"{day:%-d %b %Y}"
            # Every second one only where there is room for it.
            kind = "date roomy" if many and i % 2 else "date"
            marks.append(element("text", words, x=percent_of_width(x), y=13, text_anchor=anchor, class_=kind))
        return element("svg", *marks, class_="lane", width="100%", height=AXIS_HEIGHT, aria_hidden="true")
