"""Pairs as TMX 1.4b (LISA OSCAR, 2005) and as XLIFF 1.2 (OASIS, 2008), without times.

XML 1.0 has no way to write some characters, most control characters among them: each becomes U+FFFD.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from embedsvc import __version__
from embedsvc.mining.outputs.columns import COLUMNS, values_of
from embedsvc.mining.outputs.info import OutputInfo
from embedsvc.mining.outputs.tables import decimals
from embedsvc.mining.records import Pair

_IMPOSSIBLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'


def write_tmx(file: IO[bytes], pairs: Iterable[Pair], info: OutputInfo) -> None:
    """Write a unit per pair, its number as tuid; score, ids and places are properties (x-score, …)."""
    languages = [quoteattr(info.source_tag), quoteattr(info.target_tag)]
    header = (
        f'<header creationtool="embedsvc" creationtoolversion={quoteattr(__version__)} segtype="sentence" '
        f'o-tmf="embedsvc" adminlang="en" srclang={languages[0]} datatype="plaintext"/>'
    )
    file.write(f'{_DECLARATION}<tmx version="1.4">\n{header}\n<body>\n'.encode())
    for number, pair in enumerate(pairs, 1):
        lines = [f'<tu tuid="{number}">']
        lines += [f'<prop type="x-{name}">{value}</prop>' for name, value in _properties(pair)]
        for language, text in zip(languages, (pair.source.text, pair.target.text), strict=True):
            lines.append(f"<tuv xml:lang={language}><seg>{xml_text(text)}</seg></tuv>")
        file.write(("\n".join(lines) + "\n</tu>\n").encode())
    file.write(b"</body>\n</tmx>\n")


def write_xliff(file: IO[bytes], pairs: Iterable[Pair], info: OutputInfo) -> None:
    """Write a unit per pair, its number as id; score, ids and places are contexts (x-score, …)."""
    head = (
        '<xliff version="1.2" xmlns="urn:oasis:names:tc:xliff:document:1.2">\n'
        f'<file original="pairs" source-language={quoteattr(info.source_tag)} '
        f'target-language={quoteattr(info.target_tag)} datatype="plaintext" tool-id="embedsvc" '
        'xml:space="preserve">\n'
        f'<header><tool tool-id="embedsvc" tool-name="embedsvc" tool-version={quoteattr(__version__)}/>'
        "</header>\n<body>\n"
    )
    file.write((_DECLARATION + head).encode())
    for number, pair in enumerate(pairs, 1):
        contexts = [
            f'<context context-type="x-{name}">{value}</context>' for name, value in _properties(pair)
        ]
        lines = [
            f'<trans-unit id="{number}">',
            f"<source>{xml_text(pair.source.text)}</source>",
            f"<target>{xml_text(pair.target.text)}</target>",
            '<context-group purpose="information">',
            *contexts,
            "</context-group>\n</trans-unit>\n",
        ]
        file.write("\n".join(lines).encode())
    file.write(b"</body>\n</file>\n</xliff>\n")


def xml_text(text: str) -> str:
    """Return the text as XML content; a carriage return as a number, lest a reader make it a line feed."""
    return escape(_IMPOSSIBLE.sub("\ufffd", text), {"\r": "&#13;"})


def _properties(pair: Pair) -> Iterator[tuple[str, str]]:
    """Yield the name and value, as XML content, of what a pair has besides its texts."""
    for name, value in zip(COLUMNS, values_of(pair), strict=True):
        if value is not None and name not in ("src", "tgt"):
            yield name, xml_text(decimals(value))
