"""The rows of a collection in Milvus.

    pk         key and number
    key        hash of the document's id: 32 hexadecimal digits, which need no quoting in an expression
    document   id
    language   partition key: a search in one language asks only the partitions that hold it
    number     of the row among the document's rows; -1 for a note about the whole collection
    piece      0 where a passage begins, more where its text goes on; -1 for a note
    rows       how many rows the document has
    revision   time of the upsert, ns (the source's row for a migrated document): rows of another than that
               of row 0, left by a crash, belong to no document
    start, stop  the passage, in characters of the document's text
    directed   whether the vector has a direction; what has none is found only by its words
    text       the document's text from this row's beginning to the next one's
    words      the index terms of that text, for BM25
    metadata   JSON
    marks, ranges  what filters on metadata ask, see `milvus_filters`
    vector     unit vector; inner product

A document's text is the texts of its rows, one after the other, because a string in Milvus has at most
65,535 bytes. Notes say which languages and metadata fields there are, which Milvus cannot list: each is
a row of its own whose key is its content, so that two writers never undo each other's.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from embedsvc.collections.document import Document
from embedsvc.collections.lexical import analyze
from embedsvc.collections.milvus_client import MilvusServer, Row, is_file
from embedsvc.collections.milvus_filters import MARK_CHARACTERS, MAX_MARKS, Facts, KnownField, facts_of
from embedsvc.collections.options import CollectionOptions
from embedsvc.collections.passages import Span
from embedsvc.collections.schema import Identity
from embedsvc.collections.writer import Batch
from embedsvc.errors import InvalidInputError, StorageError

PREFIX = "embedsvc_"
FORMAT_VERSION = 1
PROPERTY = "embedsvc"
NOTE_LANGUAGE = "*"
MAX_PIECE_CHARACTERS = 6_000  # their index terms, too, have to fit into MAX_STRING_BYTES
MAX_STRING_BYTES = 65_535
_ID_BYTES = 4 * 512
_MAX_DIMENSION = 32_768
_PARTITIONS = 64  # that languages are hashed into
_FILE_PARTITIONS = 8
HNSW = {"M": 32, "efConstruction": 200}


@dataclass(frozen=True)
class Head:
    """What is fixed about a collection; ``created`` in seconds since 1970."""

    name: str
    identity: Identity
    options: CollectionOptions
    created: float


@dataclass(frozen=True)
class Notes:
    """The languages and fields that documents of a collection have had."""

    languages: frozenset[str]
    fields: frozenset[KnownField]


def milvus_name(name: str) -> str:
    """Return the name in Milvus, which allows no dash: a name with one gets a hash, to stay unique."""
    if "-" not in name:
        return PREFIX + name
    return f"{PREFIX}{name.replace('-', '_')}_{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"


def head_of(described: dict[str, Any], server: MilvusServer) -> Head | None:
    """Return what a Milvus collection says about itself; None when embedsvc did not make it.

    milvus-lite keeps properties and no description; a cluster is told the description alone.
    """
    content = described.get("description") or described.get("properties", {}).get(PROPERTY)
    try:
        stored = json.loads(content or "null")
        if not isinstance(stored, dict) or "embedsvc" not in stored:
            return None
        if stored["embedsvc"] != FORMAT_VERSION:
            raise StorageError(
                f"Milvus at {server.uri}: {described['collection_name']!r} has format {stored['embedsvc']}; "
                f"this embedsvc reads {FORMAT_VERSION}"
            )
        return Head(
            stored["name"],
            Identity(**stored["identity"]),
            CollectionOptions(**stored["options"]),
            stored["created"],
        )
    except (ValueError, KeyError, TypeError):
        return None


def create_table(server: MilvusServer, head: Head) -> None:
    """Make the Milvus collection with its indexes; raise InvalidInputError for what Milvus cannot hold."""
    from pymilvus import DataType, Function, FunctionType, MilvusClient

    _check_options(head)
    content = json.dumps({"embedsvc": FORMAT_VERSION} | asdict(head))
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False, description=content)
    add = schema.add_field
    add("pk", DataType.VARCHAR, is_primary=True, max_length=64)
    add("key", DataType.VARCHAR, max_length=MARK_CHARACTERS)
    add("document", DataType.VARCHAR, max_length=_ID_BYTES)
    add("language", DataType.VARCHAR, max_length=8, is_partition_key=True)
    for name in ("number", "piece", "rows", "revision", "start", "stop"):
        add(name, DataType.INT64)
    add("directed", DataType.BOOL)
    add("text", DataType.VARCHAR, max_length=MAX_STRING_BYTES)
    add(
        "words",
        DataType.VARCHAR,
        max_length=MAX_STRING_BYTES,
        enable_analyzer=True,
        analyzer_params={"tokenizer": "standard"},
    )
    add("metadata", DataType.JSON, nullable=True)
    add(
        "marks",
        DataType.ARRAY,
        element_type=DataType.VARCHAR,
        max_capacity=MAX_MARKS,
        max_length=MARK_CHARACTERS,
    )
    add("ranges", DataType.JSON)
    add("vector", DataType.FLOAT_VECTOR, dim=head.identity.dimension)
    add("bm25", DataType.SPARSE_FLOAT_VECTOR)
    schema.add_function(Function("bm25", FunctionType.BM25, ["words"], ["bm25"]))
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("vector", index_type="HNSW", metric_type="IP", params=HNSW)
    indexes.add_index("bm25", index_type="SPARSE_INVERTED_INDEX", metric_type="BM25")
    for name in ("key", "language", "number"):
        indexes.add_index(name, index_type="INVERTED")
    with server.translated():
        server.client.create_collection(
            milvus_name(head.name),
            schema=schema,
            index_params=indexes,
            consistency_level="Strong",
            num_partitions=_FILE_PARTITIONS if is_file(server.uri) else _PARTITIONS,
            properties={PROPERTY: content} if is_file(server.uri) else None,
        )


def key_of(id_: str) -> str:
    """Return the key of a document."""
    return hashlib.blake2b(id_.encode(), digest_size=MARK_CHARACTERS // 2).hexdigest()


def rows_of(batch: Batch, revisions: Sequence[int]) -> tuple[list[list[Row]], Notes]:
    """Return the rows of each document of a batch, with their revisions, and what is to be noted of them.

    Raises InvalidInputError naming the position of a document whose metadata are too many.
    """
    documents, languages, fields = [], set(), set()
    vectors = iter(batch.vectors)
    for position, (document, spans) in enumerate(zip(batch.documents, batch.spans, strict=True)):
        facts = facts_of(document.metadata, f"documents[{position}]")
        rows = list(_rows(document, spans, [next(vectors) for _ in spans]))
        for number, row in enumerate(rows):
            row |= _shared(document, facts, number, len(rows), revisions[position])
        documents.append(rows)
        languages.add(str(document.language))
        fields |= set(facts.fields)
    return documents, Notes(frozenset(languages), frozenset(fields))


def note_rows(notes: Notes, dimension: int) -> dict[str, Row]:
    """Return notes as rows, by their keys."""
    contents = [json.dumps({"language": code}) for code in sorted(notes.languages)]
    contents += [json.dumps({"field": asdict(field)}) for field in sorted(notes.fields)]
    return {key: _note(key, content, dimension) for content in contents for key in [key_of(content)]}


def read_notes(rows: Sequence[Row]) -> Notes:
    """Return what the notes among the rows say."""
    contents = [row["metadata"] for row in rows]
    return Notes(
        frozenset(content["language"] for content in contents if "language" in content),
        frozenset(KnownField(**content["field"]) for content in contents if "field" in content),
    )


def terms(text: str, language: str | None) -> str:
    """Return the index terms of a text such that Milvus' tokenizer takes each as one word.

    It splits at everything but letters and digits, which in many scripts are not all of a word: other
    terms than plain ASCII ones are replaced by a hash of 40 bits.
    """
    words = [
        word
        if word.isascii() and word.isalnum()
        else f"x{hashlib.blake2b(word.encode(), digest_size=5).hexdigest()}"
        for word in analyze(text, language).split()
    ]
    joined = " ".join(words)
    if len(joined) <= MAX_STRING_BYTES:
        return joined
    return joined[:MAX_STRING_BYTES].rpartition(" ")[0]


def _check_options(head: Head) -> None:
    options = head.options
    for name, wanted in (("debias", options.debias != "none"), ("token_vectors", options.token_vectors)):
        if wanted:
            raise InvalidInputError(
                f"{name} = {getattr(options, name)!r} is not offered with backend milvus", param=name
            )
    if not 2 <= head.identity.dimension <= _MAX_DIMENSION:
        raise InvalidInputError(
            f"dimension = {head.identity.dimension}; Milvus takes 2 to {_MAX_DIMENSION}", param="dimension"
        )


def _rows(document: Document, spans: Sequence[Span], vectors: Sequence[Any]) -> Iterator[Row]:
    """Yield what differs between the rows of a document: passages, and pieces of long ones."""
    begins = [0, *(span.start for span in spans[1:]), len(document.text)]
    for place, (span, vector) in enumerate(zip(spans, vectors, strict=True)):
        begin, end = begins[place], begins[place + 1]
        nothing = np.zeros_like(vector)
        for piece, at in enumerate(range(begin, max(end, begin + 1), MAX_PIECE_CHARACTERS)):
            text = document.text[at : min(at + MAX_PIECE_CHARACTERS, end)]
            yield {
                "piece": piece,
                "start": span.start,
                "stop": span.stop,
                "directed": piece == 0 and bool(vector.any()),
                "text": text,
                "words": terms(text, document.language),
                "vector": nothing if piece else vector,
            }


def _shared(document: Document, facts: Facts, number: int, rows: int, revision: int) -> Row:
    key = key_of(document.id)
    return {
        "pk": f"{key}:{number}",
        "key": key,
        "document": document.id,
        "language": document.language,
        "number": number,
        "rows": rows,
        "revision": revision,
        "metadata": document.metadata,
        "marks": facts.marks,
        "ranges": facts.ranges,
    }


def _note(key: str, content: str, dimension: int) -> Row:
    return {
        "pk": f"{key}:note",
        "key": key,
        "document": "",
        "language": NOTE_LANGUAGE,
        "number": -1,
        "piece": -1,
        "rows": 0,
        "revision": 0,
        "start": 0,
        "stop": 0,
        "directed": False,
        "text": "",
        "words": "",
        "metadata": json.loads(content),
        "marks": [],
        "ranges": {},
        "vector": np.zeros(dimension, np.float32),
    }
