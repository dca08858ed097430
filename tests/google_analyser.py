"""Google's own analyser of BigQuery's SQL over tables that a test names: what it refuses, BigQuery refuses.

It is ZetaSQL compiled to WebAssembly (``zetasql`` on PyPI). Loading takes about 25 CPU seconds, so a process does it
once; a statement then takes 20 to 200 ms.
"""

from collections.abc import Mapping
from typing import Any

Columns = Mapping[str, str]


class GoogleAnalyser:
    """Analyses statements of one project, in the order they were sent: a table that one makes is known to the next.

    ``tables`` are column name -> SQL type, by ``schema.table``.
    """

    def __init__(self, project: str, tables: Mapping[str, Columns]) -> None:
        from zetasql.types import LanguageFeature, LanguageOptions, ProductMode

        self._project = project
        self._tables = dict(tables)
        self._language = LanguageOptions.maximum_features()
        self._language.product_mode = ProductMode.PRODUCT_EXTERNAL
        self._language.enabled_language_features.append(LanguageFeature.FEATURE_CREATE_VIEWS_WITH_COLUMN_OPTIONS)
        self._catalog: Any = None

    def analyse(self, sql: str, parameters: Columns) -> int:
        """Return of how many statements a script consists; raise zetasql's error for one that BigQuery would refuse."""
        from zetasql.api import Analyzer
        from zetasql.types import AnalyzerOptions, ParseResumeLocation

        declared = [AnalyzerOptions.QueryParameter(name=name, type=_type(kind)) for name, kind in parameters.items()]
        options = AnalyzerOptions(language_options=self._language, query_parameters=declared)
        location, n_statements = ParseResumeLocation(input=sql.strip(), byte_position=0), 0
        while location.byte_position < len(location.input.encode()):
            statement = Analyzer(options, self._known()).analyze_next_statement(location)
            self._remember(statement)
            n_statements += 1
        return n_statements

    def _known(self) -> Any:
        """Return the catalog: each dataset by its name, and again inside the project."""
        from zetasql.api import TableBuilder
        from zetasql.types import SimpleCatalog, ZetaSQLBuiltinFunctionOptions

        if self._catalog is None:
            datasets: dict[str, Any] = {}
            for name, columns in self._tables.items():
                schema, _, table = name.partition(".")
                built = TableBuilder(table)
                for column, kind in columns.items():
                    built.add_column(column, _type(kind))
                datasets.setdefault(schema, SimpleCatalog(name=schema)).table.append(built.build())
            self._catalog = SimpleCatalog(
                name="root",
                named_type=[SimpleCatalog.NamedType(name=alias, type=_type("INT64")) for alias in _ALIASES_OF_INT64],
                builtin_function_options=ZetaSQLBuiltinFunctionOptions(language_options=self._language),
                catalog=[*datasets.values(), SimpleCatalog(name=self._project, catalog=list(datasets.values()))],
            )
        return self._catalog

    def _remember(self, statement: Any) -> None:
        """Know the table or view that a statement makes from a query."""
        made = type(statement).__name__ in ("ResolvedCreateTableAsSelectStmt", "ResolvedCreateViewStmt")
        name = ".".join(statement.name_path[-2:]) if made else ""
        if made and name not in self._tables:
            columns = {column.name: column.column.type for column in statement.output_column_list}
            self._tables[name] = {column: _NAMES[int(kind.type_kind)] for column, kind in columns.items()}
            self._catalog = None


# The number ZetaSQL gives to a type (``TypeKind``), by the type's name in BigQuery's SQL.
_KINDS = {
    **{"INT64": 2, "BOOL": 5, "FLOAT64": 7, "STRING": 8, "BYTES": 9, "DATE": 10},
    **{"TIMESTAMP": 19, "TIME": 20, "DATETIME": 21, "NUMERIC": 23, "BIGNUMERIC": 24},
}
# Names that BigQuery itself adds to those of ZetaSQL (its page "Data types", under INT64).
_ALIASES_OF_INT64 = ("INT", "SMALLINT", "INTEGER", "BIGINT", "TINYINT", "BYTEINT")
_NAMES = {number: name for name, number in _KINDS.items()}


def _type(kind: str) -> Any:
    from zetasql.api import TypeFactory

    if kind.startswith("ARRAY<"):
        return TypeFactory.create_array_type(_type(kind.removeprefix("ARRAY<").removesuffix(">")))
    return TypeFactory.create_simple_type(_KINDS[kind])
