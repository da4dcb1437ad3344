"""What is wrong with prices: every fault has a code. Judges and tells; changes and drops nothing itself."""

from data.quality.cells import has_decimal_commas
from data.quality.checks import check
from data.quality.codes import CODES, Code
from data.quality.rows import ROW_CODES, fault_codes, row_codes

__all__ = ["CODES", "ROW_CODES", "Code", "check", "fault_codes", "has_decimal_commas", "row_codes"]
