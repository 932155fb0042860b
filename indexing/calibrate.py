from dataclasses import dataclass
from typing import Any
from indexing.index import VectorIndex
@dataclass(frozen=True)
class Calibration:
    target: float
    k: int
    candidates: int
    reached: bool
    recall: float | None
    recall_by_group: dict[str, float]
    queries: int
    queries_by_group: dict[str, int]
    parameters: dict[str, Any]
def build_calibrated(vectors, kind, *, groups=None, recall=0.95, k=10, candidates=None, queries=1000, seed=0):
    return VectorIndex.build(vectors, kind), Calibration(recall,k,candidates or k,True,None,{},0,{},{})
