from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from embedsvc.scheduling.batcher import Batcher, EncodeOptions, Round

from embedsvc.encoder import Encoder
from embedsvc.errors import (
    EmbedsvcError,
    InvalidInputError,
    OverloadedError,
    TextTooLongError,
    UnavailableError,
)
from tests.scheduling.toy_runtime import PANIC, POISON, STOP, ToyRuntime, toy_encoder

PLAIN = EncodeOptions()


@pytest.fixture
def runtime() -> ToyRuntime:
    return ToyRuntime()


@pytest.fixture
def encoder(tmp_path, runtime) -> Encoder:
    return toy_encoder(tmp_path, runtime)


@asynccontextmanager
async def running(encoder: Encoder, **options: Any) -> AsyncIterator[Batcher]:
    batcher = Batcher(encoder, **options)
    batcher.start()
    try:
        yield batcher
    finally:
        await batcher.close(grace_s=5)


async def held(batcher: Batcher, runtime: ToyRuntime) -> asyncio.Task[Any]:
    """Let the worker enter the runtime with the text "held" and stay there."""
    runtime.open.clear()
    runtime.entered.clear()
    task = asyncio.create_task(batcher.encode(["held"], PLAIN))
    assert await asyncio.to_thread(runtime.entered.wait, 10)
    runtime.batches.clear()
    return task


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(10):
        return await awaitable


def test_each_caller_gets_the_vectors_of_its_own_texts(encoder, runtime):
    inputs = [[chr(97 + i) * (i % 11 + 1), "ab" * (i % 4 + 1)][: i % 2 + 1] for i in range(32)]

    async def run() -> list[Any]:
        async with running(encoder) as batcher:
            first = await held(batcher, runtime)
            tasks = [asyncio.create_task(batcher.encode(texts, PLAIN)) for texts in inputs]
            await asyncio.sleep(0)
            assert batcher.waiting_texts == sum(map(len, inputs))
            runtime.open.set()
            await soon(first)
            return [await soon(task) for task in tasks]

    encodings = asyncio.run(run())
    assert len(runtime.batches) == 1
    for texts, encoding in zip(inputs, encodings, strict=True):
        np.testing.assert_array_equal(encoding.vectors, encoder.encode(texts))
        assert encoding.tokens == [len(text) + 2 for text in texts]
        assert encoding.truncated == [False] * len(texts)


def test_only_requests_with_the_same_options_share_a_batch(encoder, runtime):
    wanted = [
        ("aa", PLAIN),
        ("b", EncodeOptions(prompt_name="query")),
        ("cccc", PLAIN),
        ("ddddd", EncodeOptions(dimensions=2)),
        ("eeeeee", EncodeOptions(normalize=False)),
    ]

    async def run() -> list[Any]:
        async with running(encoder) as batcher:
            first = await held(batcher, runtime)
            tasks = [asyncio.create_task(batcher.encode([text], options)) for text, options in wanted]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return [await soon(task) for task in tasks]

    encodings = asyncio.run(run())
    assert runtime.batches == [{"aa", "cccc"}, {"q:b"}, {"ddddd"}, {"eeeeee"}]
    for (text, options), encoding in zip(wanted, encodings, strict=True):
        np.testing.assert_array_equal(encoding.vectors, encoder.encode([text], **vars(options)))


def test_a_round_is_bounded_but_takes_a_larger_request_whole(encoder):
    rounds: list[Round] = []

    async def run() -> None:
        async with running(encoder, on_round=rounds.append) as batcher:
            tasks = [batcher.encode(["a"] * count, PLAIN) for count in (300, 300, 700, 100)]
            await soon(asyncio.gather(*tasks))

    asyncio.run(run())
    # 100 shares the first round with 300; the other 300 and the 700 do not fit and keep their order.
    assert [(one.requests, one.texts) for one in rounds] == [(2, 400), (1, 300), (1, 700)]
    assert rounds[0].tokens == 400 * 3


@pytest.mark.parametrize("bad", [POISON, PANIC, STOP])
def test_only_the_culprit_gets_the_error_of_a_failing_batch(encoder, runtime, bad):
    async def run() -> list[Any]:
        async with running(encoder) as batcher:
            first = await held(batcher, runtime)
            tasks = [
                asyncio.create_task(batcher.encode(texts, PLAIN)) for texts in (["a"], ["bb", bad], ["cccc"])
            ]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return await soon(asyncio.gather(*tasks, return_exceptions=True))

    good, culprit, also_good = asyncio.run(run())
    np.testing.assert_array_equal(good.vectors, encoder.encode(["a"]))
    np.testing.assert_array_equal(also_good.vectors, encoder.encode(["cccc"]))
    assert isinstance(culprit, EmbedsvcError)
    assert culprit.message == "the model failed to encode this input"
    assert culprit.__cause__ is not None


def test_positions_in_errors_are_the_callers_own(encoder, runtime):
    async def run() -> list[Any]:
        async with running(encoder) as batcher:
            first = await held(batcher, runtime)
            tasks = [
                asyncio.create_task(batcher.encode(texts, PLAIN)) for texts in (["a"] * 5, ["b", "c" * 13])
            ]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return await soon(asyncio.gather(*tasks, return_exceptions=True))

    good, culprit = asyncio.run(run())
    assert len(good.vectors) == 5
    assert isinstance(culprit, TextTooLongError)
    assert culprit.message.startswith("input[1] has 13 tokens; the limit is 12")


def test_truncated_texts_are_reported_to_their_caller(encoder):
    async def run() -> list[Any]:
        async with running(encoder) as batcher:
            options = EncodeOptions(truncate="end")
            return await soon(asyncio.gather(*[batcher.encode(["a" * n], options) for n in (3, 13, 12)]))

    encodings = asyncio.run(run())
    assert [one.truncated for one in encodings] == [[False], [True], [False]]
    assert [one.tokens for one in encodings] == [[5], [15], [14]]


def test_bad_input_is_refused_before_it_queues(encoder, runtime):
    async def run() -> None:
        async with running(encoder) as batcher:
            for texts, options, message in [
                (["a", " "], PLAIN, r"input\[1\] is empty"),
                (["a"], EncodeOptions(prompt_name="nope"), "prompt_name 'nope' is unknown"),
                (["a"], EncodeOptions(dimensions=5), "dimensions = 5"),
            ]:
                with pytest.raises(InvalidInputError, match=message):
                    await soon(batcher.encode(texts, options))
            assert (await batcher.encode([], PLAIN)).vectors.shape == (0, 4)

    asyncio.run(run())
    assert not runtime.batches


def test_a_full_queue_refuses_at_once_and_takes_texts_again_later(encoder, runtime):
    async def run() -> None:
        async with running(encoder, max_queue_texts=4) as batcher:
            first = await held(batcher, runtime)
            waiting = asyncio.create_task(batcher.encode(["a", "b", "c"], PLAIN))
            await asyncio.sleep(0)
            with pytest.raises(
                OverloadedError, match="3 texts are waiting and 2 more would exceed"
            ) as caught:
                await batcher.encode(["d", "e"], PLAIN)
            assert caught.value.retry_after >= 1
            with pytest.raises(InvalidInputError, match="input has 5 texts; the limit is 4"):
                await batcher.encode(["x"] * 5, PLAIN)
            runtime.open.set()
            await soon(asyncio.gather(first, waiting))
            assert len((await soon(batcher.encode(["d", "e"], PLAIN))).vectors) == 2

    asyncio.run(run())


def test_a_cancelled_callers_texts_are_not_encoded_and_free_the_queue(encoder, runtime):
    async def run() -> None:
        async with running(encoder, max_queue_texts=3) as batcher:
            first = await held(batcher, runtime)
            gone = asyncio.create_task(batcher.encode(["gone", "gone2"], PLAIN))
            stays = asyncio.create_task(batcher.encode(["stays"], PLAIN))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            assert batcher.waiting_texts == 1
            runtime.open.set()
            await soon(asyncio.gather(first, stays))

    asyncio.run(run())
    assert runtime.batches == [{"stays"}]


def test_callers_that_leave_during_their_round_do_not_disturb_the_others(encoder, runtime):
    async def run() -> Any:
        async with running(encoder) as batcher:
            first = await held(batcher, runtime)
            first.cancel()
            other = asyncio.create_task(batcher.encode(["other"], PLAIN))
            await asyncio.sleep(0)
            runtime.open.set()
            return await soon(other)

    np.testing.assert_array_equal(asyncio.run(run()).vectors, encoder.encode(["other"]))


def test_a_worker_that_dies_is_replaced(encoder, caplog):
    def fail(_: Round) -> None:
        raise RuntimeError("the worker dies")

    async def run() -> None:
        async with running(encoder, on_round=fail) as batcher:
            for text in ("a", "bb", "ccc"):
                encoding = await soon(batcher.encode([text], PLAIN))
                np.testing.assert_array_equal(encoding.vectors, encoder.encode([text]))

    asyncio.run(run())
    assert "the batching worker failed; another one takes over" in caplog.text


def test_closing_finishes_what_waits_and_refuses_the_rest(encoder, runtime):
    async def run() -> None:
        batcher = Batcher(encoder)
        batcher.start()
        first = await held(batcher, runtime)
        waiting = [asyncio.create_task(batcher.encode([text], PLAIN)) for text in ("a", "bb")]
        await asyncio.sleep(0)
        closing = asyncio.create_task(batcher.close(grace_s=10))
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError, match="shutting down"):
            await batcher.encode(["late"], PLAIN)
        runtime.open.set()
        await soon(closing)
        for task in (first, *waiting):
            assert len((await task).vectors) == 1

    asyncio.run(run())


def test_closing_gives_up_after_the_grace_and_answers_everyone(encoder, runtime):
    async def run() -> None:
        batcher = Batcher(encoder)
        batcher.start()
        tasks = [await held(batcher, runtime), asyncio.create_task(batcher.encode(["a"], PLAIN))]
        await asyncio.sleep(0)
        await soon(batcher.close(grace_s=0.05))
        for outcome in await soon(asyncio.gather(*tasks, return_exceptions=True)):
            assert isinstance(outcome, UnavailableError)

    try:
        asyncio.run(run())
    finally:
        runtime.open.set()


def test_an_idle_batcher_runs_no_timer(encoder):
    async def run() -> None:
        async with running(encoder) as batcher:
            await soon(batcher.encode(["a"], PLAIN))
            await asyncio.sleep(0)
            timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
            assert all(timer.cancelled() for timer in timers)
            assert batcher.round_s == 0

    asyncio.run(run())
