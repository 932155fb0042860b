"""FAISS on graphics cards, where there is one and the package ``faiss-gpu`` is installed (extra ``[gpu]``).

Two things are worth a GPU here: the k-means that makes inverted lists, and exact search. Graphs, fast
scan and RaBitQ codes exist for CPUs only; an index built with a GPU's help is an ordinary CPU index.
"""

from __future__ import annotations

from typing import Any

import faiss


def gpu_count() -> int:
    """Return how many GPUs FAISS can use; 0 with the package for CPUs."""
    return int(faiss.get_num_gpus())


def clustering_index(dimension: int) -> Any:
    """Return the index that assigns vectors to centroids in k-means, on all GPUs; None without one."""
    return faiss.index_cpu_to_all_gpus(faiss.IndexFlatIP(dimension)) if gpu_count() else None


def exact_on_gpu(flat: Any) -> Any:
    """Return a copy on all GPUs, rows shared out among them, of a FAISS flat index; itself without one."""
    if not gpu_count():
        return flat
    options = faiss.GpuMultipleClonerOptions()
    options.shard = True
    return faiss.index_cpu_to_all_gpus(flat, co=options)
