"""Read XML files of any size a block at a time, safely: no entity is expanded, nothing outside is opened.

On expat, for the line numbers of errors and for encodings as declared (UTF-16 too).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol, TypeVar
from xml.parsers import expat

from embedsvc.compression import damage_named, open_unpacked
from embedsvc.errors import InvalidInputError
from embedsvc.textfiles import check_file

Item = TypeVar("Item", covariant=True)
Attributes = dict[str, str]

_BLOCK_BYTES = 1 << 16
_SEPARATOR = "\x1f"
_ROOT = ""  # no element has this name
XML_LANG = f"http://www.w3.org/XML/1998/namespace{_SEPARATOR}lang"
"""The attribute xml:lang; attributes without namespace have their plain name."""

FOREIGN = "-"
"""The name of every element that is not of the root's namespace."""


class Content(Protocol[Item]):
    """What makes items of elements, whose names come without namespace (`FOREIGN` for another one)."""

    def start(self, name: str, attributes: Attributes) -> None:
        """Take the beginning of an element."""

    def end(self, name: str) -> None:
        """Take the end of an element."""

    def text(self, data: str) -> None:
        """Take character data."""

    def taken(self) -> Sequence[Item]:
        """Return the items that are complete, once."""


def stream_xml(path: Path, root: str, content: Content[Item]) -> Iterator[Item]:
    """Yield the items of an XML file, packed (.gz, .xz, .zst) or not, as they are completed.

    Raises InvalidInputError naming the line: damaged XML, a declared or unknown entity, another root.
    """
    check_file(path)
    parser = _parser(path, root, content)
    try:
        with open_unpacked(path) as file, damage_named(path, lambda: f"line {parser.CurrentLineNumber}"):
            while block := file.read(_BLOCK_BYTES):
                parser.Parse(block, False)
                yield from content.taken()
        parser.Parse(b"", True)
    except expat.ExpatError as error:
        place = f"{path} line {error.lineno}, column {error.offset + 1}"
        raise InvalidInputError(f"{place}: damaged XML: {expat.ErrorString(error.code)}") from error
    except (LookupError, ValueError) as error:
        raise InvalidInputError(f"{path}: its XML declaration names a strange encoding") from error
    yield from content.taken()


def _parser(path: Path, root: str, content: Content[Any]) -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.buffer_text = True
    names: dict[str, str] = {}  # as expat gives them, with their namespace: without it

    def local_name(raw: str) -> str:
        namespace, _, local = raw.rpartition(_SEPARATOR)
        if not names:
            if local != root:
                raise InvalidInputError(f"{path}: its root element is <{local}>, not <{root}>")
            names[_ROOT] = namespace
        names[raw] = local if namespace == names[_ROOT] else FOREIGN
        return names[raw]

    def refuse(name: str | None, *_: object) -> NoReturn:
        raise InvalidInputError(
            f"{path} line {parser.CurrentLineNumber}: the entity {name or ''!r} is refused; "
            "only &amp; &lt; &gt; &quot; &apos; and numbers such as &#160; are read"
        )

    def start(raw: str, attributes: Attributes) -> None:
        content.start(names.get(raw) or local_name(raw), attributes)

    def end(raw: str) -> None:
        content.end(names[raw])

    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = content.text
    return parser
