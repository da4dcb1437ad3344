"""A feed's markup to plain text and plain addresses. Every character of it is untrusted.

The text is cleaned, not escaped: `=1+1` stays `=1+1`, and whoever prints, exports or renders it escapes it
for that medium. Nothing here is quadratic: each pass is linear, and the number of passes is bounded.
"""

import html
import re
from urllib.parse import quote, urljoin, urlsplit

from data.invisible import INVISIBLE

ROUNDS = 8  # escapes within escapes; feeds that mean it nest two or three
RAW_SHARE = 16  # how much markup a character of text may cost; what lies beyond is not looked at
LONGEST_URL = 2048

_CDATA = re.compile(r"<!\[CDATA\[(.*?)(?:\]\]>|\Z)", re.DOTALL)
_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_SCRIPT = re.compile(r"<(script|style)(?=[\s/>]|\Z).*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
# Removed without a space: they stand within words. A `<` before anything but a letter, /, ! or ? is text.
_INLINE = re.compile(
    r"</?(?:a|abbr|b|bdi|big|cite|code|em|font|i|ins|mark|q|s|small|span|strike|strong|sub|sup|tt|u|wbr)"
    r"(?:[\s/][^<>]*)?>",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[a-zA-Z/!?][^<>]*>")
# Without a semicolon only those that markup is made of: `BTC&ETH` is no Icelandic letter.
_ENTITY = re.compile(r"&(?:#0*([0-9]{1,7});?|#[xX]0*([0-9a-fA-F]{1,6});?|[a-zA-Z][a-zA-Z0-9]{1,31};|lt|gt|amp|quot)")
_AMPERSAND = re.compile(r"&(?:amp;|#0*38;|#[xX]0*26;)+")  # however often it was escaped
_MARKUP = str.maketrans("", "", "<&")

_HOST = re.compile(r"[^\W_](?:[\w.-]*[^\W_])?\.?|\[[0-9a-fA-F:.]+\]")
_ODD_IN_URL = re.compile(r'[\s"<>\\^`{|}]')


def clean_text(markup: str, limit: int) -> str:
    """`markup` as one line of at most `limit` characters, without tags, entities or invisible characters.

    Undone repeatedly until nothing changes, so that `&amp;lt;b&amp;gt;` ends as nothing too; what still
    changes after `ROUNDS` passes is hostile and loses every `<` and `&`. What a script or style element
    holds goes with it. Only the first `RAW_SHARE * limit` characters are read. Empty stays empty.
    """
    text = markup[: RAW_SHARE * limit]
    if len(text) < len(markup) and text.rfind("<") > text.rfind(">"):
        text = text[: text.rfind("<")]  # a tag that was cut
    for _ in range(ROUNDS):
        plain = _unescape(_strip_tags(INVISIBLE.sub("", text)))
        if plain == text:
            break
        text = plain
    else:
        text = INVISIBLE.sub("", text.translate(_MARKUP))
    return clean_line(text, limit)


def clean_line(text: str, limit: int) -> str:
    """`text` without invisible characters, white space collapsed, cut to `limit` characters; markup stays."""
    return " ".join(INVISIBLE.sub("", text).split())[:limit].rstrip()


def clean_url(address: str, base: str) -> str | None:
    """`address` resolved against `base` as an absolute http(s) address (RFC 3986), or None.

    None for other schemes, for a host or port that cannot be, for over `LONGEST_URL` characters, and for
    addresses with a user or password: what stands before an @ poses as the host. White space and
    invisible characters are removed at the ends and at line breaks; what may not stand in an address is
    percent-encoded.
    """
    joined = "".join(line.strip() for line in INVISIBLE.sub("", address).splitlines())
    if not joined or len(joined) > LONGEST_URL:
        return None
    try:
        parts = urlsplit(joined)
        parts = parts if parts.scheme else urlsplit(urljoin(base, joined))
        sound = parts.scheme in ("http", "https") and "@" not in parts.netloc and _has_host(parts.netloc)
        sound = sound and parts.port != 0
    except ValueError:  # brackets or a port that cannot be
        return None
    encoded = _ODD_IN_URL.sub(lambda odd: quote(odd[0]), parts.geturl())
    return encoded if sound and len(encoded) <= LONGEST_URL else None


def _has_host(netloc: str) -> bool:
    return _HOST.fullmatch(re.sub(r":\d*\Z", "", netloc)) is not None


def _strip_tags(text: str) -> str:
    if "<" not in text:
        return text
    text = _SCRIPT.sub(" ", _COMMENT.sub(" ", _CDATA.sub(r"\1", text)))
    text = _TAG.sub(" ", _INLINE.sub("", text))
    return _cut_open_tag(text)


def _cut_open_tag(text: str) -> str:
    """Without a tag that the end of the text cut short; one without an attribute may be a comparison."""
    at = text.rfind("<")
    tail = text[at:] if at >= 0 else ""
    return text[:at] if re.match(r"<[a-zA-Z]", tail) and "=" in tail else text


def _unescape(text: str) -> str:
    return _ENTITY.sub(_character, _AMPERSAND.sub("&", text)) if "&" in text else text


def _character(entity: re.Match[str]) -> str:
    decimal, hexadecimal = entity.groups()
    if decimal is None and hexadecimal is None:
        return html.unescape(entity[0])
    code = int(decimal) if decimal else int(hexadecimal, 16)
    return html.unescape(f"&#{code};").replace("\ufffd", "")  # for a code that is no character
