"""What passes between `data.news.parse` and its worker processes: lengths, JSON and bytes, never pickle.

A request is `HEAD` (two lengths), JSON `[content_type, url]`, and the document. An answer is `LENGTH` and
JSON `{"entries", "problem", "remark", "last"}`; the first, when the process is ready, is empty.
"""

import struct

HEAD = struct.Struct("!II")
LENGTH = struct.Struct("!I")
MIB = 1 << 20
