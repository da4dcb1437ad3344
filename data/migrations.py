"""How a table of an earlier schema is read and brought to the present one, and how one of a later schema is refused.

Delta's own schema of a table says which it is: no version is kept beside it. A migration only adds columns. It is one
commit of metadata, so a kill leaves the table as it was or as it is to be, and a second one finds nothing to do. Rows
are never rewritten for it: what they lack is filled in whenever they are read.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable, Field
from deltalake.exceptions import CommitFailedError

from data.errors import LakeError
from data.schemas import SCHEMAS

READER_VERSION = 1  # of Delta's protocol: all that these tables need; a later one may hide rows from who ignores it

_WAS_LIVE = pc.field("origin").cast(pa.string()) == "live"

# Columns that the first released schema lacked, and what its rows hold in them.
ADDED: dict[str, dict[str, pc.Expression]] = {
    "forecasts": {"standing": pc.if_else(_WAS_LIVE, pc.scalar("live"), pc.scalar("replay"))},
}


def projection(table: str, names: Sequence[str]) -> dict[str, pc.Expression]:
    """The columns `names` of `table` as expressions for a scanner: what earlier rows lack is filled in."""
    added = ADDED.get(table, {})
    return {
        name: pc.coalesce(pc.field(name).cast(pa.string()), added[name]) if name in added else pc.field(name)
        for name in names
    }


def missing(table: str, stored: pa.Schema, where: str) -> list[str]:
    """The columns that a table of an earlier schema lacks; none where `stored` is the present one.

    Raises LakeError, which names `where` it lies, where no version up to this one wrote such a table.
    """
    schema = SCHEMAS[table]
    unknown = [field for field in stored if field.name not in schema.names or schema.field(field.name) != field]
    if unknown:
        found = ", ".join(f"{field.name} ({field.type})" for field in unknown)
        raise LakeError(
            f"{where}: expected the columns that this version of Tapewire knows, found {found}: a later version wrote "
            "it. Upgrade Tapewire. Nothing was read or written."
        )
    lacking = [name for name in schema.names if name not in stored.names]
    lost = [name for name in lacking if name not in ADDED.get(table, {})]
    if lost:
        raise LakeError(
            f"{where}: expected the columns of {table}, found none named {', '.join(lost)}: no version of Tapewire "
            "wrote it. Restore it from a copy. Nothing was read or written."
        )
    return lacking


def outdated(target: DeltaTable, table: str) -> list[str]:
    """`missing` of a stored table. Raises LakeError where a later version wrote it."""
    protocol = target.protocol().min_reader_version
    if protocol > READER_VERSION:
        raise LakeError(
            f"{target.table_uri}: expected a table of Delta's reader version {READER_VERSION}, found {protocol}: a "
            "later version of Tapewire or another program wrote it. Upgrade Tapewire. Nothing was read or written."
        )
    return missing(table, pa.schema(target.schema().to_arrow()), target.table_uri)


def upgrade(target: DeltaTable, table: str) -> DeltaTable:
    """The table with the present schema; one commit where it had an earlier one.

    Of two processes that do it at once one commits; the other takes what that one did.
    """
    while lacking := outdated(target, table):
        fields = [Field.from_arrow(SCHEMAS[table].field(name)) for name in lacking]
        before = target.version()
        try:
            target.alter.add_columns(fields)
        except CommitFailedError:
            target = DeltaTable(target.table_uri)
            if target.version() == before:
                raise
    return target
