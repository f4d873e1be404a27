"""Bytes of a text file -> text, whatever wrote it; what is not text is refused."""

import codecs

MAX_BYTES = 16 * 2**20  # of one label file or yaml: no real one is near it
MARKS = (  # byte order mark, codec; UTF-32 before UTF-16, whose mark it begins with
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
CONTROLS = bytes({*range(32)} - {*b"\t\n\v\f\r\x1a\x1c\x1d\x1e\x1f"}) + b"\x7f"  # \x1a: DOS ended files with it


class NotText(ValueError):
    """The bytes are no text, and why."""


def read_bytes(path: str) -> bytes:
    """Content of a label file; NotText where it is far too large to be one."""
    with open(path, "rb") as f:
        content = f.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise NotText(f"more than {MAX_BYTES // 2**20} MB, too large for a label file")
    return content


def decode_text(content: bytes) -> tuple[str, str | None]:
    """The text, without byte order mark, and the name of its encoding where that is not UTF-8."""
    for mark, codec in MARKS:
        if content.startswith(mark):
            return _decode(content[len(mark) :], codec), None if codec == "utf-8" else codec.upper()
    if content.translate(None, CONTROLS) == content:
        try:
            return content.decode("utf-8"), None
        except UnicodeDecodeError:
            return content.decode("latin-1"), "Latin-1 (or another of 8 bits)"
    for codec, zeros in (("utf-16-le", content[1::2]), ("utf-16-be", content[::2])):
        if len(content) % 2 == 0 and not zeros.strip(b"\0"):  # digits and spaces: every other byte is 0
            return _decode(content, codec), codec.upper()
    raise NotText("binary, not text")


def _decode(content: bytes, codec: str) -> str:
    try:
        text = content.decode(codec)
    except UnicodeDecodeError as e:
        raise NotText(f"damaged {codec.upper()} text ({e.reason})") from None
    if "\0" in text:
        raise NotText("binary, not text")
    return text
