"""A full disk, or a limit on files, as one paragraph. Frees nothing, and is no place for other errors."""

import errno
import re
from collections.abc import Iterator

from data.errors import TapewireError

FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)

# What libraries that wrap the error say of it: its number in Rust's words or Arrow's, or the system's own.
_SAID = re.compile(
    rf"(os error|errno) ({'|'.join(map(str, FULL))})\b|no space left on device|file too large|disk quota exceeded",
    re.IGNORECASE,
)


class DiskFullError(TapewireError):
    """No room to write. What was stored before is whole."""

    exit_code = 4


def disk_full(error: BaseException) -> bool:
    """Whether an error comes of a disk, quota or file size that is used up, also where a library has wrapped it."""
    return any(_is_full(each) for each in _chain(error))


def full_disk(error: BaseException) -> DiskFullError:
    """The same error as one paragraph."""
    said = next(str(each) for each in _chain(error) if _is_full(each))
    return DiskFullError(
        f"expected room to write, found none: {' '.join(said.split())[:300]}. What was stored before is whole. Make "
        "room on the disk (or raise the quota or `ulimit -f`), then run the same command again: it goes on from there."
    )


def _is_full(error: BaseException) -> bool:
    """One of ours says it in words of its own: what counts is what it came of."""
    if isinstance(error, TapewireError):
        return False
    return (isinstance(error, OSError) and error.errno in FULL) or bool(_SAID.search(str(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    at: BaseException | None = error
    while at is not None and id(at) not in seen:
        seen.add(id(at))
        yield at
        at = at.__cause__ or at.__context__
