"""What the kinds with inverted lists share: training, and a search that widens under a filter.

Selectors of FAISS 1.15 hold for every one of these indexes; only the lists to visit and the candidates
to refine are ours to choose.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray

from indexing.kinds.stored import Found, Rows, repeat_short, scan

_TRAINING_ROWS = 39  # per centroid: FAISS's own least number
_CODE_CENTROIDS = 16  # of a 4-bit code
_SCANNED = 20
"""Codes that are read in the time of one kept vector (measured at 384 dimensions, 8-bit values)."""
_K_FACTORS = (1, 2, 4, 8, 16, 32)


class Effort(NamedTuple):
    """How much a search reads: ``nprobe`` of ``nlist`` lists, then ``k·k_factor`` kept vectors.

    A ``k_factor`` of 0 says that the index is no IndexRefine; ``rotated`` that a rotation comes first.
    """

    nlist: int
    nprobe: int
    k_factor: int
    rotated: bool = False


def lists_for(nlist: int, count: int) -> int:
    """Return ``nlist``, or as many lists as ``count`` vectors suffice to train."""
    return max(1, min(nlist, count // _TRAINING_ROWS))


def built(factory: str, vectors: NDArray[np.float32]) -> Any:
    """Return the FAISS index ``factory`` describes, trained on ``vectors`` ``(n, dim)`` and holding them.

    Vectors too few to train a code are repeated for the training; for none, unit vectors stand in.
    """
    index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    examples = vectors if len(vectors) else np.eye(vectors.shape[1], dtype=np.float32)
    least = _CODE_CENTROIDS * _TRAINING_ROWS
    _train(index, examples if len(examples) >= least else np.resize(examples, (least, examples.shape[1])))
    index.add(vectors)
    return index


def _train(index: Any, examples: NDArray[np.float32]) -> None:
    """Train, with the k-means on all GPUs if there are some."""
    lists = faiss.extract_index_ivf(index)
    if faiss.get_num_gpus():
        assigning = faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(lists.d))
        lists.clustering_index = assigning
    index.train(examples)
    lists.clustering_index = None


def search_lists(
    index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None, effort: Effort
) -> Found:
    """Return scores and rows ``(q, k)`` of an index made by `built`.

    A filter that leaves few vectors is answered by a scan of those kept, which is cheaper and complete.
    Where a query finds less than there is, it is repeated by a scan of everything: the lists it visits
    may hold too little, and fast scan never returns a code with the least possible score.
    """
    allowed = index.ntotal if rows is None else len(rows)
    if rows is None:
        result: Found = index.search(queries, k, params=_shared_parameters(effort))
    elif allowed <= largest_scan(index.ntotal, k, effort):
        return _scan(index, queries, k, rows, effort)
    else:
        wide = widened(effort, k, allowed, index.ntotal)
        result = index.search(queries, k, params=_parameters(wide, rows.selector(index.ntotal)))
    if result[1].min(initial=0) < 0:
        repeat_short(result, queries, allowed, lambda short: _scan(index, short, k, rows, effort))
    return result


def _scan(index: Any, queries: NDArray[np.float32], k: int, rows: Rows | None, effort: Effort) -> Found:
    """Scan all kept vectors, or all codes where there are none."""
    if effort.k_factor:
        return scan(faiss.downcast_index(index.refine_index), queries, k, rows)
    allowed = None if rows is None else rows.selector(index.ntotal)
    result: Found = index.search(
        queries, k, params=_parameters(effort._replace(nprobe=effort.nlist), allowed)
    )
    return result


def widened(effort: Effort, k: int, allowed: int, count: int) -> Effort:
    """Return the effort under a filter that leaves ``allowed`` of ``count`` vectors.

    As many allowed vectors are met as without a filter. What a filter leaves lies close together if it
    follows a language, so that its codes tell less apart: more candidates are refined as well.
    """
    share = allowed / count
    nprobe = min(effort.nlist, math.ceil(effort.nprobe / share))
    k_factor = min(math.ceil(effort.k_factor / math.sqrt(share)), max(1, math.ceil(allowed / k)))
    return effort._replace(nprobe=nprobe, k_factor=k_factor if effort.k_factor else 0)


def largest_scan(count: int, k: int, effort: Effort) -> float:
    """Allowed vectors up to which reading all of them kept costs no more than visiting lists."""
    by_lists = count * math.sqrt(effort.nprobe / (effort.nlist * _SCANNED))
    return max(min(by_lists, count / _SCANNED), float(k * effort.k_factor))


def efforts(nlist: int, count: int, k: int) -> list[tuple[int, int]]:
    """Return pairs of nprobe and k_factor, the estimated cost of a search for ``k`` growing."""
    probes = [2**step for step in range(nlist.bit_length())]
    if probes[-1] < nlist:
        probes.append(nlist)

    def cost(pair: tuple[int, int]) -> float:
        return pair[0] / nlist * count / _SCANNED + min(pair[1] * k, count)

    return sorted(itertools.product(probes, _K_FACTORS), key=lambda pair: (cost(pair), pair))


def _parameters(effort: Effort, allowed: Any = None) -> Any:
    """FAISS's search parameters, nested as `built` nests indexes."""
    parameters = faiss.SearchParametersIVF(nprobe=effort.nprobe, sel=allowed)
    if effort.rotated:
        parameters = faiss.SearchParametersPreTransform(index_params=parameters)
    if effort.k_factor:
        return faiss.IndexRefineSearchParameters(k_factor=effort.k_factor, base_index_params=parameters)
    return parameters


# FAISS only reads them, so that all threads share these.
_shared_parameters = functools.lru_cache(_parameters)
