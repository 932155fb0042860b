from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedsvc.errors import ModelError
from embedsvc.model_folder import Module
from embedsvc.pooling import POOLING_MODES, Pooling, pool_states, read_pooling

RIGHT = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 0, 0, 0, 0, 0]])
LEFT = RIGHT[:, ::-1].copy()
MIXED = np.array([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0]])


def random_states(seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, 6, 4)).astype(np.float32)


def reference(states: np.ndarray, mask: np.ndarray, prompt: int | None = None, **config: Any) -> np.ndarray:
    torch = pytest.importorskip("torch")
    from sentence_transformers.sentence_transformer.modules import Pooling as Reference

    features = {"token_embeddings": torch.from_numpy(states), "attention_mask": torch.from_numpy(mask)}
    if prompt is not None:
        features["prompt_length"] = prompt
    return Reference(states.shape[2], **config)(features)["sentence_embedding"].numpy()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mask", [RIGHT, LEFT, MIXED], ids=["right", "left", "mixed"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_every_mode_pools_as_sentence_transformers_does(mode: str, mask: np.ndarray) -> None:
    states = random_states()
    expected = reference(states, mask, pooling_mode=mode)
    np.testing.assert_allclose(pool_states(states, mask, Pooling((mode,))), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mask", [RIGHT[:2], LEFT[:2]], ids=["right", "left"])
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_an_excluded_prompt_is_left_out_as_sentence_transformers_does(mode: str, mask: np.ndarray) -> None:
    states = random_states()[:2]
    expected = reference(states, mask, prompt=2, pooling_mode=mode, include_prompt=False)
    pooling = Pooling((mode,), include_prompt=False)
    found = pool_states(states, mask, pooling, np.array([2, 2]))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    if mode != "lasttoken":
        assert not np.allclose(found, pool_states(states, mask, Pooling((mode,)), np.array([2, 2])))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("mode", POOLING_MODES)
def test_a_text_that_is_all_prompt_pools_as_in_sentence_transformers(mode: str) -> None:
    states = random_states()
    expected = reference(states, RIGHT, prompt=6, pooling_mode=mode, include_prompt=False)
    found = pool_states(states, RIGHT, Pooling((mode,), include_prompt=False), np.array([6, 6, 6]))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_each_text_may_have_its_own_prompt() -> None:
    states = random_states()[:2]
    pooling = Pooling(("mean",), include_prompt=False)
    found = pool_states(states, RIGHT[:2], pooling, np.array([3, 0]))
    np.testing.assert_allclose(found[0], states[0, 3:].mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(found[1], states[1, :4].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("cls", 1.0),
        ("max", 4.0),
        ("mean", (1 + 4 + 2) / 3),
        ("mean_sqrt_len_tokens", (1 + 4 + 2) / 3**0.5),
        ("weightedmean", (1 * 1 + 2 * 4 + 3 * 2) / 6),
        ("lasttoken", 2.0),
    ],
)
def test_by_hand(mode: str, expected: float) -> None:
    states = np.array([[[1.0], [4.0], [2.0], [99.0]]], np.float32)
    found = pool_states(states, np.array([[1, 1, 1, 0]]), Pooling((mode,)))
    assert found.dtype == np.float32
    assert found[0, 0] == pytest.approx(expected, rel=1e-6)


def test_several_modes_stand_side_by_side_in_the_given_order() -> None:
    states = random_states()
    found = pool_states(states, RIGHT, Pooling(("lasttoken", "cls")))
    np.testing.assert_array_equal(found[:, :4], states[[0, 1, 2], [5, 3, 0]])
    np.testing.assert_array_equal(found[:, 4:], states[:, 0])


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode": "lasttoken"}, ("lasttoken",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode_weightedmean_tokens": True, "pooling_mode_mean_tokens": False}, ("weightedmean",)),
        ({"word_embedding_dimension": 4, "pooling_mode_mean_tokens": False}, ("mean",)),
        ({"pooling_mode": "max", "pooling_mode_mean_tokens": True}, ("max",)),
    ],
)
def test_old_and_new_configs_are_read(config: dict[str, Any], modes: tuple[str, ...]) -> None:
    assert read_pooling(Module("Pooling", Path("m"), config)) == Pooling(modes, include_prompt=True)


def test_include_prompt_is_read() -> None:
    config = {"pooling_mode": "mean", "include_prompt": False}
    assert not read_pooling(Module("Pooling", Path("m"), config)).include_prompt


@pytest.mark.parametrize("config", [{"pooling_mode": "median"}, {"pooling_mode_median_tokens": True}])
def test_an_unknown_mode_is_refused_by_name(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=r"unknown pooling mode .*median.*known are cls, max, mean,"):
        read_pooling(Module("Pooling", Path("m"), config))


def test_a_pooling_module_without_a_config_is_refused() -> None:
    with pytest.raises(ModelError, match=r"1_Pooling/config\.json is missing or empty"):
        read_pooling(Module("Pooling", Path("m/1_Pooling")))
