"""What the cells of a text file say before they are numbers."""

import pyarrow as pa
import pyarrow.compute as pc

from data.quality.rows import PRICES

# 12,34 and 1.234,56 and 1,234.56: which of them is meant cannot be told from one cell, so none is guessed at.
COMMA = r"^\s*[-+]?\d[\d.' \x{a0}]*,\d[\d,]*(\.\d+)?\s*$"
MOST = 0.01  # of the cells: a few are quarantined as no number


def has_decimal_commas(table: pa.Table) -> bool:
    """Whether prices of `table`, as they stand in the file, are written with commas. Cells may be of any type."""
    for name in PRICES:
        column = table[name] if name in table.column_names else pa.chunked_array([], pa.float64())
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            written = pc.sum(pc.match_substring_regex(column, COMMA)).as_py() or 0
            if written > MOST * len(column):
                return True
    return False
