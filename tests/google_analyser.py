"""Google's own analyser of BigQuery's SQL, on the tables a test names: what it refuses, BigQuery refuses.

It is ZetaSQL compiled to WebAssembly (PyPI ``zetasql``). Loading takes about 25 CPU seconds, so a process does it once;
then a statement takes 20 to 200 ms.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

# What the analyser does not know: statements that have no columns or tables to be wrong about.
_WITHOUT_ANALYSIS = re.compile(r"(BEGIN|COMMIT|ROLLBACK)\s+TRANSACTION|DROP\s", re.I)


@dataclass(kw_only=True)
class Catalog:
    """Tables by ``schema.table``, as column name -> SQL type; ``project`` may stand before them."""

    project: str
    tables: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def options(self) -> object:
        """Return the analyser's options: BigQuery's dialect, parameters of any type."""
        from zetasql.types import AnalyzerOptions, LanguageOptions, ProductMode

        language = LanguageOptions.maximum_features()
        language.product_mode = ProductMode.PRODUCT_EXTERNAL
        language.supported_statement_kinds = []
        return AnalyzerOptions(language_options=language, allow_undeclared_parameters=True)
