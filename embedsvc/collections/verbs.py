"""What every collection does alike, wherever its documents are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from numpy.typing import NDArray

from embedsvc.collections.request import Fusion, Mode, SearchOptions
from embedsvc.search import Hit, SearchResult


class SearchKeywords(TypedDict, total=False):
    """The fields of `SearchOptions` as keywords."""

    top_k: int
    offset: int
    languages: Sequence[str] | None
    prefer_language: str | Mapping[str, float] | None
    balance: str | Mapping[str, int]
    filter: Mapping[str, Any] | None
    mode: Mode
    fusion: Fusion
    min_score: float | None
    group_by: str | None
    maxsim: int
    rerank: int
    query_language: str | None
    facets: bool
    explain: bool


class Searchable(ABC):
    """Searches with keywords, and ``with`` blocks that close, on top of `query` and `close`."""

    @abstractmethod
    def query(
        self,
        queries: Sequence[str] | None = None,
        vectors: NDArray[Any] | Sequence[NDArray[Any] | Sequence[float]] | None = None,
        options: SearchOptions | None = None,
    ) -> list[SearchResult]:
        """Return a result for each of ``queries``, or ``vectors`` (n, dimension), or both together.

        Where a query has a vector, that is searched for, and its text only for words and reranking.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of all files and connections."""

    def search(self, query: str, **options: Unpack[SearchKeywords]) -> list[Hit]:
        """Return the documents nearest to ``query``, best first; the query may be in any language.

        The options are those of `SearchOptions`. A query of which the model knows no token finds nothing
        by meaning. Raises InvalidInputError naming the value and the limit.
        """
        return self.query([query], options=SearchOptions(**options))[0].hits

    def search_vector(
        self, vector: NDArray[Any] | Sequence[float], **options: Unpack[SearchKeywords]
    ) -> list[Hit]:
        """As `search`, for a query vector (dimension,) of the collection's model, of any length but 0."""
        return self.query(vectors=[vector], options=SearchOptions(**options))[0].hits

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
