"""The gate of the portable graph: raw columns through it give what coded columns give through the coded graph."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from ml_assets.core.encoding import Signature, Vocabulary, encode
from ml_assets.core.errors import PackageRefused
from ml_assets.core.parity import in_scale
from ml_assets.core.portable_model import odd_rows, to_portable
from ml_assets.core.scoring import score_coded, score_portable

LARGEST_PORTABLE_DIFFERENCE = 1e-6
# Tables of raw columns, each with what the coded graph answers for its rows, float64 [n].
Answered = Sequence[tuple[pa.Table, np.ndarray]]


def verified_portable(
    model: bytes,
    answered: Answered,
    *,
    signature: Signature,
    vocabulary: Vocabulary,
    scale: float = 1.0,
) -> bytes:
    """Return the portable graph of a coded one, compared on all rows of these tables; raises what its parts raise."""
    portable = to_portable(model, signature=signature, vocabulary=vocabulary)
    largest_portable_difference(model, portable, answered, signature, vocabulary, scale=scale)
    return portable


def largest_portable_difference(
    model: bytes,
    portable: bytes,
    answered: Answered,
    signature: Signature,
    vocabulary: Vocabulary,
    *,
    scale: float = 1.0,
) -> float:
    """Return the largest difference between the portable graph on raw columns and the coded graph on coded ones.

    It is given in ``scale``, see ``answer_scale``. Each table is compared whole, and once more with the odd rows made
    of its first. Raises PackageRefused above 1e-6.
    """
    largest = 0.0
    odd = [odd_rows(table, signature, vocabulary) for table, _ in answered]
    answered_odd = [(table, score_coded(model, encode(table, signature, vocabulary))) for table in odd]
    for table, coded in (*answered, *answered_odd):
        if coded.shape != (table.num_rows,):
            raise ValueError(f"there are answers of shape {coded.shape} for {table.num_rows} rows; expected one each")
        difference = np.abs(score_portable(portable, table, signature) - coded) / scale
        largest = max(largest, float(np.max(difference, initial=0.0)))
        # A comparison that is false for NaN would let one pass.
        if not bool(np.all(difference <= LARGEST_PORTABLE_DIFFERENCE)):
            row = int(np.argmax(np.nan_to_num(difference, nan=np.inf)))
            raise PackageRefused(
                f"the portable graph differs from the coded one by {difference[row]:.2g} on row {row} of "
                f"{table.num_rows}; expected at most {LARGEST_PORTABLE_DIFFERENCE:g}{in_scale(scale)}; "
                "the candidate is not saved"
            )
    return largest
