"""Headlines to tickers: an alias table (what names meant, and when) and a linker that weighs what it finds."""

from data.linking.aliases import Alias, AliasTable
from data.linking.evidence import CONFIDENT
from data.linking.linker import Link, Linker

__all__ = ["CONFIDENT", "Alias", "AliasTable", "Link", "Linker"]
