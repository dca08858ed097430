"""One source made of several: each raw table comes from the place that is named for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from ml_assets.core.contracts import Contract
from ml_assets.core.days import DayRange
from ml_assets.core.errors import BadInput
from ml_assets.core.ports import BatchSource, Source, VersionedSource


@dataclass(frozen=True, kw_only=True)
class RoutedSource:
    """The ports of a source; ``routes`` are the tables that do not come from ``otherwise``, each with its source."""

    routes: Mapping[str, Source]
    otherwise: Source

    @property
    def contracts(self) -> Mapping[str, Contract]:
        """The contract of each table, by table name."""
        return {**self.otherwise.contracts, **{name: source.contracts[name] for name, source in self.routes.items()}}

    def source_of(self, table: str) -> Source:
        """Return where a table comes from; raise BadInput for one that is nowhere."""
        if table not in self.contracts:
            raise BadInput(f"there is no table {table!r}; there are {', '.join(self.contracts)}")
        return self.routes.get(table, self.otherwise)

    def read(self, table: str, days: DayRange | None = None) -> pa.Table:
        """Return a table's rows of these local days, or all rows of an unpartitioned one."""
        return self.source_of(table).read(table, days)

    def batches(self, table: str, days: DayRange | None = None) -> Iterator[pa.Table]:
        """Yield the rows that ``read`` returns in parts, or at once where the table's own source has no parts."""
        source = self.source_of(table)
        if isinstance(source, BatchSource):
            yield from source.batches(table, days)
        else:
            yield source.read(table, days)

    def versions(self, table: str, days: DayRange | None = None) -> Mapping[date | None, str]:
        """Return which state each day with data is in now; nothing where the table's own source cannot tell."""
        source = self.source_of(table)
        return source.versions(table, days) if isinstance(source, VersionedSource) else {}

    def note(self, days: DayRange) -> str:
        """Say in one line where the rows of these days come from."""
        notes = [f"{name}: {source.note(days)}" for name, source in sorted(self.routes.items())]
        return "; ".join([*notes, f"all else: {self.otherwise.note(days)}"])
