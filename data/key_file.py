"""Sorted keys as a file that is mapped, not read: opening a store of a million rows sorts nothing.

The file is derived from the keys beside the rows and replaced as a whole. What cannot be read is as
good as absent: it says so in the log, and the caller sorts the keys itself.
"""

import logging
import os
from pathlib import Path

import numpy as np

from data.key_index import SortedKeys

log = logging.getLogger(__name__)

MAGIC = b"tapewire keys 1\n"
HEAD_BYTES = 32  # the magic, the number of keys, and room
WORDS = 3  # of 8 bytes for a key: its first, its second, its row


def read_index(path: Path) -> SortedKeys | None:
    """The sorted keys in `path`, mapped; None where there is no such file or it is damaged."""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
        size = path.stat().st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning("%s cannot be read (%s); the keys are sorted anew, nothing is lost", path, error.strerror)
        return None
    count = int.from_bytes(head[len(MAGIC) : len(MAGIC) + 8], "little")
    if not head.startswith(MAGIC) or size != HEAD_BYTES + count * WORDS * 8 or not count:
        log.warning("%s is damaged (%d bytes); the keys are sorted anew, nothing is lost", path, size)
        return None
    words = np.asarray(np.memmap(path, dtype="<u8", mode="r", offset=HEAD_BYTES, shape=(WORDS, count)))
    return SortedKeys(words[0], words[1], words[2].view("<i8"))


def write_index(path: Path, keys: SortedKeys) -> None:
    """Put sorted keys in place of what `path` held; a reader sees the old file or the new one."""
    draft = path.with_name(f"{path.name}.tmp")
    with draft.open("wb") as file:
        file.write((MAGIC + len(keys).to_bytes(8, "little")).ljust(HEAD_BYTES, b"\0"))
        for words in (keys.first, keys.second, keys.row):
            file.write(np.ascontiguousarray(words, dtype=f"<{words.dtype.kind}8").data)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
