"""pyarrow.compute makes its functions at import; to pyright each is a function of anything."""

from typing import Any

def __getattr__(name: str) -> Any: ...
