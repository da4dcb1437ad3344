"""The characters that show nothing: controls, bidi marks, zero-width ones. No text is cleaned here.

Alone in a module without imports beyond `re`, because the process that parses feeds must start fast
and small.
"""

import re

# Controls other than white space, soft hyphen, bidi marks and overrides, zero-width characters, tags and
# lone surrogates. Spelt out, because `unicodedata` differs between Python versions and keys must not.
INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]+"
)
