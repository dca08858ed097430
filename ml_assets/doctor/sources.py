"""Where raw tables come from: each place of ``ML_ASSETS_SOURCES``, asked through the very source that will read it."""

from dataclasses import replace
from urllib.parse import unquote, urlsplit

from ml_assets.backends.environments import Environment
from ml_assets.backends.sources.bigquery_tables import BigQueryTablesSource
from ml_assets.backends.sources.bigtable import BigtableSource
from ml_assets.backends.sources.files import FilesSource
from ml_assets.core.contracts import PARTITION
from ml_assets.core.ports import Source
from ml_assets.core.routed_source import RoutedSource
from ml_assets.doctor.checkup import Trouble
from ml_assets.doctor.tables import asked
from ml_assets.resources import source_of

_SECONDS = 10.0
_IN_VAIN = "write rows there, or correct ML_ASSETS_SOURCES"


def reached(environment: Environment, table: str) -> str:
    """Ask a table's source for the first of what it has: one page of a listing, one row, or what a table is like."""
    url = environment.sources[table]
    match _source(environment, table):
        case FilesSource() as files:
            return _first_file(files, url)
        case BigtableSource() as bigtable:
            return _first_row(bigtable, url)
        case BigQueryTablesSource() as tables:
            return _described(tables, url)
        case other:
            raise TypeError(f"no check of {type(other).__name__}, where {url} leads")


def advice(url: str) -> str:
    """Return what to do where the place cannot be asked."""
    correct = "or correct ML_ASSETS_SOURCES"
    match url.partition("://")[0]:
        case "bigquery":
            return f"create {url}, or grant roles/bigquery.dataViewer on it, {correct}"
        case "bigtable":
            return f"create {url}, or grant roles/bigtable.reader on it, {correct}"
        case "webhdfs":
            host = urlsplit(url).netloc.rpartition("@")[2]
            return f"check that {host} is the name node's WebHDFS (port 9870) and lets this user read, {correct}"
        case _:
            return f"mkdir -p {unquote(urlsplit(url).path)}, or mount the disk it is on, {correct}"


def _source(environment: Environment, table: str) -> Source:
    """Return the source of this table alone: what is wrong with another's URL is not this one's fault."""
    found = source_of(replace(environment, sources={table: environment.sources[table]}))
    return found.source_of(table) if isinstance(found, RoutedSource) else found


def _first_file(source: FilesSource, url: str) -> str:
    first = next(iter(source.store.list()), None)
    if first is None:
        raise Trouble(f"{url} can be listed, and no file is there", do=_IN_VAIN, status="warn")
    return f"{url}: begins with {first.path}"


def _first_row(source: BigtableSource, url: str) -> str:
    key = source.first_key(patience_seconds=_SECONDS)
    if key is None:
        raise Trouble(f"{url} can be read, and has no row with cells of the contract", do=_IN_VAIN, status="warn")
    return f"{url}: begins with row {key.decode(errors='replace')}"


def _described(source: BigQueryTablesSource, url: str) -> str:
    name = f"{source.project}.{source.dataset}.{source.table}"
    with asked(source.connect) as client:
        found = client.get_table(name, retry=None, timeout=_SECONDS)
    columns = {source.day_column if c.name == PARTITION else c.name for c in source.contract.columns}
    if missing := sorted(columns - {field.name for field in found.schema}):
        raise Trouble(
            f"{url} lacks the columns {', '.join(missing)}",
            do="offer a view with them; ?day=COLUMN at the end of its URL names the one that tells the day",
        )
    return f"{url}: {found.num_rows or 0:,} rows in {found.location}"
