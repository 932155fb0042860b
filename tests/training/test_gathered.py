"""Two processes learn what one learns from the whole batch."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training tests need the [train] extra")

from training.data import TokenBags  # noqa: E402
from training.gathered import gathered  # noqa: E402
from training.hard_negatives.drawing import DrawnNegatives  # noqa: E402
from training.loss_config import KoLeoConfig, TranslationRankingConfig  # noqa: E402
from training.losses import EmbeddedPairs  # noqa: E402
from training.losses.pairs import Negatives  # noqa: E402
from training.objective import Objective  # noqa: E402
from training.relations import PairKeys, relation_matrix  # noqa: E402

PAIRS, WORLD, TARGETS, SOURCES = 12, 2, 7, 1


def loss_and_gradients(rank: int, world: int) -> tuple[float, list["torch.Tensor"]]:
    """Return the mean loss of the processes, and the gradients as averaged over them."""
    generator = torch.Generator().manual_seed(3)
    student = torch.randn(5, 8, generator=generator, dtype=torch.float64).requires_grad_()
    texts = torch.randn(2, PAIRS, 5, generator=generator, dtype=torch.float64)
    mined = torch.randn(TARGETS + SOURCES, 5, generator=generator, dtype=torch.float64)
    left_out = torch.rand(PAIRS, TARGETS + SOURCES, generator=generator) < 0.3
    # Sentences and texts come again in the other half, and on the other side.
    keys = np.array([[0, 1, 2, 3, 4, 5, 0, 1, 8, 9, 10, 11], [20, 21, 22, 3, 24, 25, 26, 21, 22, 4, 5, 31]])
    size = PAIRS // world
    own = slice(rank * size, (rank + 1) * size)
    mine = PairKeys(source=keys[0, own], target=keys[1, own], group=keys[0, own])
    relations = torch.from_numpy(relation_matrix(mine, mine, positives="group"))
    source, target = (texts[:, own] @ student).unbind()
    drawn = DrawnNegatives(  # a number that the processes cannot share out evenly
        TokenBags(np.arange(TARGETS + SOURCES, dtype=np.int32), np.arange(TARGETS + SOURCES + 1)),
        TARGETS,
        -(~left_out[:, :TARGETS]).numpy().astype(np.int8),
        -(~left_out[:, TARGETS:]).numpy().astype(np.int8),
    ).share(np.arange(PAIRS)[own], rank, world)
    vectors = mined[drawn.texts.ids.astype(np.int64)] @ student
    negatives = Negatives(
        vectors[drawn.targets :],
        vectors[: drawn.targets],
        torch.from_numpy(drawn.forward),
        torch.from_numpy(drawn.backward),
    )
    pairs = EmbeddedPairs(source, target, relations, negatives=negatives)
    pairs = gathered(pairs, mine, positives="group")
    objective = Objective([TranslationRankingConfig(), KoLeoConfig(kind="koleo", weight=0.5)])
    value, _ = objective(pairs, [8, 3])
    value.backward()
    assert student.grad is not None
    return value.item(), [student.grad]


@pytest.mark.slow
def test_two_processes_have_the_loss_and_gradients_of_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _RUN, str(tmp_path)]
    processes = [subprocess.Popen([*command, str(rank)]) for rank in range(WORLD)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    parts = [pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) for rank in range(WORLD)]
    value, gradients = loss_and_gradients(0, 1)
    assert np.mean([one for one, _ in parts]) == pytest.approx(value, abs=1e-12)
    average = (parts[0][1][0] + parts[1][1][0]) / 2
    assert torch.allclose(average, gradients[0], rtol=0, atol=1e-12)
    assert not torch.allclose(parts[0][1][0], gradients[0], rtol=0, atol=1e-3)


_RUN = """
import pickle, sys
from pathlib import Path
import torch
from tests.training.test_gathered import WORLD, loss_and_gradients
folder, rank = Path(sys.argv[1]), int(sys.argv[2])
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=WORLD)
(folder / f"{rank}.pickle").write_bytes(pickle.dumps(loss_and_gradients(rank, WORLD)))
torch.distributed.destroy_process_group()
"""
