"""Read XML files of any size a block at a time, safely: no entity is expanded, nothing outside is opened.

On expat, for the line numbers of errors and for encodings as declared (UTF-16 too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
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
_XML_NAMESPACE = "http://www.w3.org/XML/1998/namespace"
FOREIGN = ""
"""The name of every element that is not of the root's namespace."""


class Content(Protocol[Item]):
    """What makes items of elements, whose names come without namespace (`FOREIGN` for another one)."""

    def start(self, name: str, attributes: Attributes) -> None:
        """Take the beginning of an element; of attributes only those without namespace and xml:…"""

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
    with open_unpacked(path) as file:
        while True:
            with damage_named(path, lambda: f"line {parser.CurrentLineNumber}"):
                block = file.read(_BLOCK_BYTES)
            try:
                parser.Parse(block, not block)
            except expat.ExpatError as error:
                reason = expat.ErrorString(error.code)
                raise InvalidInputError(
                    f"{path} line {error.lineno}, column {error.offset + 1}: damaged XML: {reason}"
                ) from error
            except (LookupError, ValueError) as error:
                raise InvalidInputError(f"{path}: its XML declaration names a strange encoding") from error
            yield from content.taken()
            if not block:
                return


def _parser(path: Path, root: str, content: Content[Any]) -> expat.XMLParserType:
    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.buffer_text = True
    local = _LocalNames(path, root)

    def refuse(name: str | None, *_: object) -> NoReturn:
        raise InvalidInputError(
            f"{path} line {parser.CurrentLineNumber}: the entity {name or ''!r} is refused; "
            "only &amp; &lt; &gt; &quot; &apos; and numbers such as &#160; are read"
        )

    def start(raw: str, attributes: Attributes) -> None:
        content.start(local.name(raw), local.attributes(attributes))

    parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse
    parser.SkippedEntityHandler = refuse
    parser.StartElementHandler = start
    parser.EndElementHandler = _end_handler(local, content.end)
    parser.CharacterDataHandler = content.text
    return parser


def _end_handler(local: _LocalNames, end: Callable[[str], None]) -> Callable[[str], None]:
    return lambda raw: end(local.name(raw))


class _LocalNames:
    """Names without the namespace of the root."""

    def __init__(self, path: Path, root: str) -> None:
        self._path, self._root = path, root
        self._home: str | None = None
        self._known: dict[str, str] = {}

    def name(self, raw: str) -> str:
        found = self._known.get(raw)
        return self._learn(raw) if found is None else found

    def _learn(self, raw: str) -> str:
        namespace, _, local = raw.rpartition(_SEPARATOR)
        if self._home is None:
            if local != self._root:
                raise InvalidInputError(f"{self._path}: its root element is <{local}>, not <{self._root}>")
            self._home = namespace
        self._known[raw] = local if namespace == self._home else FOREIGN
        return self._known[raw]

    def attributes(self, raw: Attributes) -> Attributes:
        if not any(_SEPARATOR in name for name in raw):
            return raw
        prefix = _XML_NAMESPACE + _SEPARATOR
        plain = {name.replace(prefix, "xml:"): value for name, value in raw.items()}
        return {name: value for name, value in plain.items() if _SEPARATOR not in name}
