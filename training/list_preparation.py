"""A run on queries with scored passages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedsvc.cache import cache_folder
from embedsvc.errors import InvalidInputError
from embedsvc.reranker import load_reranker
from embedsvc.textfiles import write_json
from training.config import Recipe
from training.data import text_keys
from training.draws import PairDraws
from training.held_out import HeldOut, held_out_keys
from training.list_sampling import ListSampler, ListShape, ListSource
from training.loss_config import LossConfig, ScoreDistillationConfig
from training.pair_files import matching_files, path_facts
from training.preparation import (
    Prepared,
    begin_run,
    token_share,
)
from training.processes import rank, world
from training.run_facts import check_files, keep_facts
from training.run_tokenizer import run_tokenization, run_tokenizer
from training.score_cache import ScoreCache
from training.scored_lists import ScoredLists, read_lists
from training.student import ReadyStudent
from training.token_store import SideTokens, tokenized


def prepare_lists(
    recipe: Recipe, run: Path, data_folder: Path, *, ready: ReadyStudent | None = None, progress: bool
) -> Prepared:
    """As `training.preparation.prepare`, for a recipe with ``data.lists``."""
    files = [path for pattern in recipe.data.lists for path in matching_files(pattern, data_folder)]
    begin_run(recipe, run, ready)
    facts = path_facts(files)
    check_files(facts, run / "data.json")
    lists = read_lists(files, least=recipe.sampling.passages)
    if recipe.schedule.batch > len(lists.queries):
        raise InvalidInputError(
            f"schedule.batch = {recipe.schedule.batch} is more than the {len(lists.queries)} queries"
        )
    _check_parts(recipe, len(lists.languages))
    lists = lists.with_scores(_scores(recipe, lists, run, progress))
    tokenizer = None
    if ready is None:
        everything = np.ones(len(lists.queries) + len(lists.texts))
        tokenizer = run_tokenizer(recipe, lists.some, everything, run / "tokenizer.json", data_folder)
    how = run_tokenization(recipe, tokenizer, ready)
    queries = tokenized(lists.queries, how, label="queries", progress=progress)
    texts = tokenized(lists.texts, how, label="passages", progress=progress)
    source = ListSource(
        queries.bags,
        texts.bags,
        text_keys(lists.queries),
        text_keys(lists.texts),
        lists.starts,
        lists.text,
        lists.scores,
    )
    held_out = held_out_lists(source, recipe)
    sampling = recipe.sampling
    shape = ListShape(recipe.schedule.batch, sampling.passages, sampling.mixing)
    draws = PairDraws((~held_out.excluded).astype(np.float64))
    sampler = ListSampler(source, draws, shape, seed=recipe.seed, part=(rank(), world()))
    share = (
        None if tokenizer is None else token_share([queries.counts, texts.counts], tokenizer.get_vocab_size())
    )
    write_json(run / "data.json", {"files": facts, **_report(lists, [queries, texts])})
    return Prepared(tokenizer, share, None, sampler, held_out, None)


def _check_parts(recipe: Recipe, languages: int) -> None:
    """Languages are compared within a process: it has to have a query in all of them."""
    batch, processes = recipe.schedule.batch, world()
    if processes == 1 or not any(map(_compares_languages, recipe.objective)):
        return
    if (batch // processes) % languages:
        least = processes * languages
        raise InvalidInputError(
            f"schedule.batch = {batch}: each of {processes} processes gets {batch // processes}, no whole "
            f"number of queries in {languages} languages each; take a multiple of {least}, as "
            f"{max(batch // least, 1) * least}"
        )


def _compares_languages(loss: LossConfig) -> bool:
    return isinstance(loss, ScoreDistillationConfig) and loss.language_weight > 0


def _scores(recipe: Recipe, lists: ScoredLists, run: Path, progress: bool) -> NDArray[np.float32]:
    """Return the file's scores, or those of the recipe's reranker."""
    if recipe.reranker is not None:
        reranker = load_reranker(recipe.reranker.model)
        keep_facts("reranker", {"fingerprint": reranker.fingerprint}, run / "reranker.json")
        cache = ScoreCache(
            reranker, cache_folder("rerankers"), max_text_tokens=recipe.reranker.max_text_tokens
        )
        return cache.scores(lists.lists(), progress=progress)
    missing = np.flatnonzero(np.isnan(lists.scores))
    if len(missing):
        query = lists.queries[int(np.searchsorted(lists.starts, missing[0], side="right")) - 1]
        raise InvalidInputError(
            f"data.lists: query {query[:80]!r} has no scores; give them, or a [reranker] that makes them"
        )
    return lists.scores


def held_out_lists(source: ListSource, recipe: Recipe) -> HeldOut:
    """Keep some queries aside, each with its best passage in one of its languages."""
    generator = np.random.default_rng((recipe.seed, 0x1157))
    keys = source.query_keys
    excluded = np.isin(keys, held_out_keys(keys, recipe.data.held_out_groups, generator))
    rows = np.flatnonzero(excluded)
    best = [begin + int(source.scores[begin:end].argmax()) for begin, end in _bounds(source, rows)]
    options = source.text[best]
    chance = np.where(options >= 0, generator.random(options.shape), -1.0)
    chosen = options[np.arange(len(best)), chance.argmax(axis=1)].astype(np.int64)
    _, first = np.unique(source.text_keys[chosen], return_index=True)  # one query for each passage
    return HeldOut(source.queries.part(rows[first]), source.texts.part(chosen[first]), excluded)


def _bounds(source: ListSource, rows: NDArray[np.int64]) -> list[tuple[int, int]]:
    return [(int(source.starts[row]), int(source.starts[row + 1])) for row in rows]


def _report(lists: ScoredLists, sides: Sequence[SideTokens]) -> dict[str, Any]:
    count = (lists.text >= 0).sum(axis=0)
    return {
        "queries": len(lists.queries),
        "passages": len(lists.scores),
        "tokens": sum(len(side.bags.ids) for side in sides),
        "texts_cut_at_max_tokens": sum(side.cut for side in sides),
        "languages": {code: int(n) for code, n in sorted(zip(lists.languages, count, strict=True))},
    }
