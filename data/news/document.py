"""The bytes a server sent to the text that a feed parser may see, or the reason why it may not.

Nothing is parsed here. Decoding is done before the parser and for it, so that what was checked is what
is parsed: it gets the text from the root element on, as UTF-8, and never sees a prolog. Hence no
declaration can reach it, whatever its encoding.
"""

import codecs
import re
from dataclasses import dataclass
from html.entities import html5

EMPTY = "empty document"
HTML = "HTML page"
NO_FEED = "neither RSS nor Atom"
NO_ENTRIES = "no entries"
NO_TITLES = "no entry has a title"
DECLARATION = "DOCTYPE or ENTITY declaration"
COMPRESSED = "compressed document"
CUT = "cut within an entry"
SUSPECT = frozenset({EMPTY, HTML, NO_FEED, NO_ENTRIES, NO_TITLES})

_BOMS = {  # in this order: UTF-32's little-endian one begins with UTF-16's
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_ZEROS: dict[tuple[bool, ...], str] = {  # where the first four bytes are zero (XML 1.0, appendix F)
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
}
# Python's name of each encoding that is read -> what it is read as (the superset browsers use, WHATWG).
# Stateful ones (UTF-7, HZ, ISO-2022) and EBCDIC are not: there a letter's byte need not be that letter.
_SAME = (
    *(f"iso8859-{part}" for part in (2, 3, 4, 5, 6, 7, 8, 10, 13, 14, 15, 16)),
    *(f"cp125{page}" for page in range(9)),
    *("koi8-r", "koi8-u", "cp866", "cp874", "mac-roman", "mac-cyrillic"),
    *("gb18030", "big5hkscs", "cp932", "euc_jp", "cp949"),
)
_READ_AS = {name: name for name in _SAME} | {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "big5": "big5hkscs",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
_ENCODING = re.compile(rb"\s*<\?xml\b[^>]{0,200}?\bencoding\s*=\s*[\"']([\w.:-]{1,40})[\"']")
_CHARSET = re.compile(r";\s*charset\s*=\s*[\"']?([\w.:-]{1,40})", re.IGNORECASE)
_ASCII = bytes(range(128))

# What XML 1.0 forbids: it makes a parser reject the document, and some crash on references to it.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
# References that XML does not define, which would cost the document its strict reading and `AT&T` its form.
_REFERENCE = re.compile(
    r"<!\[CDATA\[.*?(?:\]\]>|\Z)|<!--.*?(?:-->|\Z)"
    r"|&(?!(?:lt|gt|amp|quot|apos);)(?:#0*([0-9]+);?|#[xX]0*([0-9a-fA-F]+);?|([a-zA-Z][a-zA-Z0-9]{1,31};)|)",
    re.DOTALL,
)
_SOUND = re.compile(r"&#(?:[0-9]{1,7}|x[0-9a-fA-F]{1,6});")

_MARK = re.compile(r"<[a-zA-Z_!?]")
_ROOT = re.compile(r"<([a-zA-Z_][\w.:-]*)")
_DECLARED = re.compile(r"<!(?:DOCTYPE|ENTITY|ELEMENT|ATTLIST|NOTATION)", re.IGNORECASE)
_LITERAL = r"(\"[^\"<>]*\"|'[^'<>]*')"
_DOCTYPE = re.compile(rf"<!DOCTYPE\s+([\w.:-]+)\s*(?:(?:PUBLIC\s*{_LITERAL}|SYSTEM)\s*{_LITERAL}?\s*)?>", re.IGNORECASE)
_NETSCAPE = "-//Netscape Communications//DTD RSS 0.9"
_FEED = re.compile(r"<(?:rss|feed|rdf:RDF)[\s>]", re.IGNORECASE)
_HTML_ROOTS = frozenset({"html", "head", "body", "meta", "title", "script", "center", "div", "h1", "p"})


class UnreadableError(Exception):
    """A document that no parser shall see; its text is the reason."""


@dataclass(frozen=True)
class Readable:
    """`text` begins with the root element's tag; `remarks` say what had to be mended."""

    text: str
    remarks: tuple[str, ...]

    @property
    def cut(self) -> bool:
        """Whether the document ends within an entry, which then lacks what would tell it from others."""
        opened, closed = (max(self.text.rfind(mark + name) for name in ("item", "entry")) for mark in ("<", "</"))
        return opened > closed


def read_document(document: bytes, content_type: str | None) -> Readable:
    """The text of `document` from its root element on. `content_type` is the HTTP header, if there was one.

    Raises UnreadableError for documents that are empty, compressed, HTML or without any element, for
    encodings that are not read, and for DOCTYPE and ENTITY declarations. Harmless, and dropped, are
    three DOCTYPEs without an internal subset: `html` with any identifiers, any name without one, and
    Netscape's for RSS 0.9x.
    """
    if document[:2] == b"\x1f\x8b":
        raise UnreadableError(COMPRESSED)
    decoded, remark = _decode(document, content_type)
    legal = _FORBIDDEN.sub("", decoded)
    if not legal.strip():
        raise UnreadableError(EMPTY)
    root = legal[_root(legal) :]
    text = _REFERENCE.sub(_mend, root)
    remarks = (
        remark,
        "forbidden characters removed" if len(legal) < len(decoded) else None,
        "references mended" if text != root else None,
    )
    return Readable(text, tuple(filter(None, remarks)))


def _decode(document: bytes, content_type: str | None) -> tuple[str, str | None]:
    """Text and remark. A BOM decides, then zero bytes, then whether it is UTF-8, then what is declared.

    Valid UTF-8 is UTF-8 whatever is declared: other text is valid UTF-8 only by an accident that a few
    letters make impossible, while wrong declarations are common. The document's own declaration goes
    before the header's charset, which servers set for all files alike. Without either: windows-1252.
    """
    for mark, encoding in _BOMS.items():
        if document.startswith(mark):
            return document[len(mark) :].decode(encoding, "replace"), None
    wide = _ZEROS.get(tuple(byte == 0 for byte in document[:4]), "")
    if wide:
        return document.decode(wide, "replace"), None
    if document[:4] == b"\x4c\x6f\xa7\x94":  # `<?xm` in EBCDIC
        raise UnreadableError("encoding EBCDIC is not read")
    found = _ENCODING.match(document[:1024].lstrip(b"\0"))
    own = found[1].decode("ascii", "replace") if found else None
    codec = _codec(own)
    text = _utf8(document)
    if text is not None:
        return text
    header = _CHARSET.search(content_type or "")
    chosen = codec or _header_codec(header[1] if header else None) or "cp1252"
    return document.decode(chosen, "replace"), None if codec else f"encoding {own or 'not declared'}, read as {chosen}"


def _utf8(document: bytes) -> tuple[str, str | None] | None:
    """The text if it is UTF-8 but for a cut at its end or, of its non-ASCII bytes, a quarter at most."""
    try:
        return document.decode("utf-8"), None
    except UnicodeDecodeError as error:
        if error.reason == "unexpected end of data":
            return document[: error.start].decode("utf-8"), "cut within a character"
    text = document.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    if 4 * broken > len(document.translate(None, delete=_ASCII)):
        return None
    return text, f"{broken} characters are not UTF-8"


def _codec(declared: str | None) -> str | None:
    """What to read a declared encoding as; None if it says nothing (unknown, or UTF, which shows by itself).

    Raises UnreadableError for an encoding that exists and is not read.
    """
    if declared is None:
        return None
    try:
        name = codecs.lookup(declared).name
    except LookupError:
        return None
    if name.startswith(("utf-8", "utf-16", "utf-32")):
        return None
    if name not in _READ_AS:
        raise UnreadableError(f"encoding {declared} is not read")
    return _READ_AS[name]


def _header_codec(declared: str | None) -> str | None:
    try:
        return _codec(declared)
    except UnreadableError:  # a header alone condemns no document
        return None


def _mend(reference: re.Match[str]) -> str:
    """A reference as XML has it: names as numbers, numbers of forbidden characters as nothing, other & as text."""
    decimal, hexadecimal, name = reference.groups()
    if reference[0][0] == "<":  # CDATA and comments stay as they are
        return reference[0]
    if name:
        return "".join(f"&#{ord(char)};" for char in html5.get(name, "")) or f"&amp;{name}"
    if not decimal and not hexadecimal:
        return "&amp;"
    digits, radix = (decimal, 10) if decimal else (hexadecimal, 16)
    code = int(digits, radix) if len(digits) < 8 else 0
    if not 0 < code < 0x110000 or _FORBIDDEN.match(chr(code)):
        return ""
    return reference[0] if _SOUND.fullmatch(reference[0]) else f"&#{code};"


def _root(text: str) -> int:
    """Where the first start tag is. Comments, instructions, harmless DOCTYPEs and stray text before it are passed."""
    mark = _MARK.search(text)
    while mark:
        at = mark.start()
        root = _ROOT.match(text, at)
        if root:
            if root[1].lower() in _HTML_ROOTS and not _FEED.search(text, at):  # some pages hold a feed
                raise UnreadableError(HTML)
            return at
        mark = _MARK.search(text, _skip(text, at))
    raise UnreadableError(NO_FEED)


def _skip(text: str, at: int) -> int:
    """The end of whatever begins at `at` and is no start tag."""
    if text.startswith("<!--", at):
        end = text.find("-->", at + 4)
        return end + 3 if end >= 0 else len(text)
    if text.startswith("<?", at):
        end = text.find("?>", at + 2)
        return end + 2 if end >= 0 else len(text)
    if _DECLARED.match(text, at):
        doctype = _DOCTYPE.match(text, at)
        if not doctype or not _harmless(doctype):
            raise UnreadableError(DECLARATION)
        return doctype.end()
    return at + 1


def _harmless(doctype: re.Match[str]) -> bool:
    name, public, system = doctype.groups()
    unnamed = public is None and system is None
    return name.lower() == "html" or unnamed or (public is not None and public[1:].startswith(_NETSCAPE))
