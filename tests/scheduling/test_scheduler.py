from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from embedsvc.encoder import Encoder, Timings
from embedsvc.errors import (
    DeadlineError,
    InvalidInputError,
    ModelFailedError,
    ModelLostError,
    OverloadedError,
    TextTooLongError,
    UnavailableError,
)
from embedsvc.options import EncodeOptions
from embedsvc.scheduling.scheduled import ScheduledEncoder
from embedsvc.scheduling.scheduler import Scheduler
from embedsvc.scheduling.workers import BatchReport, Observer, SchedulerOptions
from tests.scheduling.toy_runtime import KILL, NAN, PANIC, POISON, STOP, ToyRuntime, toy_encoder

PLAIN = EncodeOptions()


@pytest.fixture
def runtime() -> ToyRuntime:
    return ToyRuntime()


@pytest.fixture
def encoder(tmp_path, runtime) -> Encoder:
    return toy_encoder(tmp_path, runtime)


@asynccontextmanager
async def running(
    encoder: Encoder, observer: Observer | None = None, **options: Any
) -> AsyncIterator[Scheduler]:
    scheduler = Scheduler(encoder, SchedulerOptions(**options), observer)
    scheduler.start()
    try:
        yield scheduler
    finally:
        await asyncio.to_thread(scheduler.close, 5)


async def held(scheduler: Scheduler, runtime: ToyRuntime) -> asyncio.Task[Any]:
    """Let the worker enter the runtime with the text "held" and stay there."""
    runtime.open.clear()
    runtime.entered.clear()
    task = asyncio.create_task(scheduler.encode(["held"], PLAIN))
    assert await asyncio.to_thread(runtime.entered.wait, 60)
    runtime.batches.clear()
    return task


async def soon(awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(60):
        return await awaitable


def test_each_caller_gets_the_vectors_of_its_own_texts(encoder, runtime):
    inputs = [[chr(97 + i) * (i % 11 + 1), "ab" * (i % 4 + 1)][: i % 2 + 1] for i in range(32)]

    async def run() -> list[Any]:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            tasks = [asyncio.create_task(scheduler.encode(texts, PLAIN)) for texts in inputs]
            await asyncio.sleep(0)
            assert scheduler.waiting_texts("interactive") == sum(map(len, inputs))
            runtime.open.set()
            await soon(first)
            return [await soon(task) for task in tasks]

    encodings = asyncio.run(run())
    assert len(runtime.batches) <= 4  # by length, whoever asked
    for texts, encoding in zip(inputs, encodings, strict=True):
        np.testing.assert_array_equal(encoding.vectors, encoder.encode(texts))
        assert encoding.tokens == [len(text) + 2 for text in texts]
        assert encoding.truncated == [False] * len(texts)


def test_requests_with_different_options_share_a_batch(encoder, runtime):
    wanted = [
        ("aa", PLAIN),
        ("b", EncodeOptions(prompt_name="query")),
        ("c", EncodeOptions(input_type="query")),
        ("ddddd", EncodeOptions(dimensions=2)),
        ("eeeeee", EncodeOptions(normalize=False)),
    ]

    async def run() -> list[Any]:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            tasks = [asyncio.create_task(scheduler.encode([text], options)) for text, options in wanted]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return [await soon(task) for task in tasks]

    encodings = asyncio.run(run())
    assert runtime.batches == [{"aa", "q:b", "q:c", "ddddd", "eeeeee"}]
    for (text, options), encoding in zip(wanted, encodings, strict=True):
        np.testing.assert_array_equal(encoding.vectors, encoder.encode([text], **vars(options)))


class Recorder(Observer):
    def __init__(self) -> None:
        self.batches: list[BatchReport] = []
        self.requests: list[tuple[str, Timings]] = []

    def on_batch(self, report: BatchReport) -> None:
        self.batches.append(report)

    def on_request(self, lane: str, timings: Timings) -> None:
        self.requests.append((lane, timings))


def test_batches_hold_texts_of_similar_length_within_the_budget(encoder):
    texts = ["a" * (1 + (7 * i) % 12) for i in range(60)]
    recorder = Recorder()

    async def run() -> Any:
        async with running(encoder, recorder, batch_tokens=70) as scheduler:
            return await soon(scheduler.encode(texts, PLAIN))

    encoding = asyncio.run(run())
    np.testing.assert_array_equal(encoding.vectors, encoder.encode(texts))
    assert sum(report.texts for report in recorder.batches) == 60
    assert all(report.padded_tokens <= 70 for report in recorder.batches)
    tokens = sum(report.tokens for report in recorder.batches)
    assert tokens == sum(len(text) + 2 for text in texts)
    assert sum(report.padded_tokens for report in recorder.batches) < 1.15 * tokens
    ((lane, timings),) = recorder.requests
    assert lane == "bulk"  # more than interactive_texts = 32
    parts = timings.tokenize_s + timings.queue_s + timings.inference_s
    assert parts == pytest.approx(timings.total_s)
    assert encoding.timings == timings


def test_interactive_requests_go_before_bulk_ones(encoder, runtime):
    async def run() -> None:
        async with running(encoder, batch_tokens=30) as scheduler:
            first = await held(scheduler, runtime)
            bulk = [asyncio.create_task(scheduler.encode(["bulk" * 2] * 40, PLAIN)) for _ in range(3)]
            await asyncio.sleep(0)
            quick = asyncio.create_task(scheduler.encode(["quick"], PLAIN))
            asked = asyncio.create_task(scheduler.encode(["asked"], PLAIN, priority="bulk"))
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(asyncio.gather(first, quick, asked, *bulk))

    asyncio.run(run())
    assert runtime.batches[0] == {"quick"}
    assert "asked" in set().union(*runtime.batches[1:])


def test_bulk_work_has_its_turn_under_interactive_load(encoder, runtime):
    async def run() -> None:
        async with running(encoder, batch_tokens=8) as scheduler:
            first = await held(scheduler, runtime)
            quick = [asyncio.create_task(scheduler.encode([f"q{i:02}"], PLAIN)) for i in range(40)]
            bulk = asyncio.create_task(scheduler.encode(["bulk"], PLAIN, priority="bulk"))
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(asyncio.gather(first, bulk, *quick))

    asyncio.run(run())
    assert 6 <= runtime.batches.index({"bulk"}) <= 9


def test_a_client_with_much_work_does_not_hold_up_the_others(encoder, runtime):
    async def run() -> None:
        async with running(encoder, batch_tokens=64) as scheduler:
            first = await held(scheduler, runtime)
            options = {"priority": "bulk"}
            tasks = [
                asyncio.create_task(scheduler.encode(["greedy"] * 100, PLAIN, client="greedy", **options))
                for _ in range(20)
            ]
            tasks.append(asyncio.create_task(scheduler.encode(["modest"], PLAIN, client="modest", **options)))
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(asyncio.gather(first, *tasks))

    asyncio.run(run())
    place = next(i for i, batch in enumerate(runtime.batches) if "modest" in batch)
    assert len(runtime.batches) > 200
    assert place <= 16  # one window, not the 2,000 texts before it


def test_few_texts_are_spread_over_the_workers(tmp_path):
    runtime = ToyRuntime()
    runtime.workers = 2

    async def run() -> None:
        async with running(toy_encoder(tmp_path, runtime)) as scheduler:
            await soon(scheduler.encode(["a" * 10 for _ in range(12)], PLAIN))

    recorded = runtime.sizes
    asyncio.run(run())
    assert sorted(recorded) == [6, 6]


@pytest.mark.parametrize("bad", [POISON, PANIC, STOP])
def test_only_the_culprit_gets_the_error_of_a_failing_batch(encoder, runtime, bad):
    async def run() -> list[Any]:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            tasks = [
                asyncio.create_task(scheduler.encode(texts, PLAIN))
                for texts in (["a"], ["bb", bad], ["cccc"])
            ]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return await soon(asyncio.gather(*tasks, return_exceptions=True))

    good, culprit, also_good = asyncio.run(run())
    np.testing.assert_array_equal(good.vectors, encoder.encode(["a"]))
    np.testing.assert_array_equal(also_good.vectors, encoder.encode(["cccc"]))
    assert isinstance(culprit, ModelFailedError)
    assert culprit.message == "the model failed to encode input[1]"
    assert len(runtime.batches) <= 8  # halves, not one by one


def test_positions_in_errors_are_the_callers_own(encoder, runtime):
    async def run() -> list[Any]:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            tasks = [
                asyncio.create_task(scheduler.encode(texts, PLAIN)) for texts in (["a"] * 5, ["b", "c" * 13])
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
        async with running(encoder) as scheduler:
            options = EncodeOptions(truncate="end")
            return await soon(asyncio.gather(*[scheduler.encode(["a" * n], options) for n in (3, 13, 12)]))

    encodings = asyncio.run(run())
    assert [one.truncated for one in encodings] == [[False], [True], [False]]
    assert [one.tokens for one in encodings] == [[5], [15], [14]]


def test_bad_input_is_refused_before_it_queues(encoder, runtime):
    async def run() -> None:
        async with running(encoder) as scheduler:
            for texts, options, message in [
                (["a", " "], PLAIN, r"input\[1\] is empty"),
                (["a"], EncodeOptions(prompt_name="nope"), "prompt_name 'nope' is unknown"),
                (["a"], EncodeOptions(dimensions=5), "dimensions = 5"),
            ]:
                with pytest.raises(InvalidInputError, match=message):
                    await soon(scheduler.encode(texts, options))
            assert (await scheduler.encode([], PLAIN)).vectors.shape == (0, 4)

    asyncio.run(run())
    assert not runtime.batches


def test_a_full_queue_refuses_at_once_and_takes_texts_again_later(encoder, runtime):
    async def run() -> None:
        async with running(encoder, max_queue_texts=4) as scheduler:
            first = await held(scheduler, runtime)
            waiting = asyncio.create_task(scheduler.encode(["a", "b", "c"], PLAIN))
            await asyncio.sleep(0)
            with pytest.raises(
                OverloadedError, match="3 interactive texts are waiting and 2 more would exceed"
            ) as caught:
                await scheduler.encode(["d", "e"], PLAIN)
            assert caught.value.retry_after >= 1
            with pytest.raises(InvalidInputError, match="input has 5 texts; the limit is 4"):
                await scheduler.encode(["x"] * 5, PLAIN)
            runtime.open.set()
            await soon(asyncio.gather(first, waiting))
            assert len((await soon(scheduler.encode(["d", "e"], PLAIN))).vectors) == 2

    asyncio.run(run())


def test_a_cancelled_callers_texts_are_not_encoded_and_free_the_queue(encoder, runtime):
    async def run() -> None:
        async with running(encoder, max_queue_texts=3) as scheduler:
            first = await held(scheduler, runtime)
            gone = asyncio.create_task(scheduler.encode(["gone", "gone2"], PLAIN))
            stays = asyncio.create_task(scheduler.encode(["stays"], PLAIN))
            await asyncio.sleep(0)
            gone.cancel()
            await asyncio.wait([gone])
            assert scheduler.waiting_texts("interactive") == 1
            runtime.open.set()
            await soon(asyncio.gather(first, stays))

    asyncio.run(run())
    assert runtime.batches == [{"stays"}]


def test_callers_that_leave_during_their_round_do_not_disturb_the_others(encoder, runtime):
    async def run() -> Any:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            first.cancel()
            other = asyncio.create_task(scheduler.encode(["other"], PLAIN))
            await asyncio.sleep(0)
            runtime.open.set()
            return await soon(other)

    np.testing.assert_array_equal(asyncio.run(run()).vectors, encoder.encode(["other"]))


def test_a_vector_that_is_not_finite_is_an_error_for_its_text_only(encoder, runtime):
    async def run() -> list[Any]:
        async with running(encoder) as scheduler:
            first = await held(scheduler, runtime)
            tasks = [asyncio.create_task(scheduler.encode(texts, PLAIN)) for texts in (["a"], ["b", NAN])]
            await asyncio.sleep(0)
            runtime.open.set()
            await soon(first)
            return await soon(asyncio.gather(*tasks, return_exceptions=True))

    good, culprit = asyncio.run(run())
    np.testing.assert_array_equal(good.vectors, encoder.encode(["a"]))
    assert isinstance(culprit, ModelFailedError)
    assert culprit.message == "the model gave a vector that is not finite for input[1]"


def test_a_text_that_kills_the_model_is_found_and_the_others_are_encoded(tmp_path):
    runtime = ToyRuntime()
    runtime.workers = 2
    encoder = toy_encoder(tmp_path, runtime)
    runtime.delay_s = 0.01
    groups = [[f"t{i:02}{j}" for j in range(4)] for i in range(24)]
    groups[3][2] = KILL

    async def run() -> list[Any]:
        async with running(encoder, batch_tokens=64) as scheduler:
            tasks = [asyncio.create_task(scheduler.encode(texts, PLAIN)) for texts in groups]
            return await soon(asyncio.gather(*tasks, return_exceptions=True))

    outcomes = asyncio.run(run())
    culprit = outcomes.pop(3)
    assert isinstance(culprit, ModelFailedError)
    assert culprit.message == "the model died on input[2]"
    del groups[3]
    for texts, outcome in zip(groups, outcomes, strict=True):
        np.testing.assert_array_equal(outcome.vectors, encoder.encode(texts))
    assert runtime.alone  # while a suspect runs, nothing else does


def test_a_hung_worker_is_given_up_and_replaced(encoder, runtime):
    async def run() -> None:
        async with running(encoder, batch_timeout_s=0.4) as scheduler:
            first = await held(scheduler, runtime)
            await asyncio.sleep(0.5)
            other = asyncio.create_task(scheduler.encode(["other"], PLAIN, timeout_s=0.1))
            with pytest.raises(DeadlineError, match=r"not encoded within 0\.1 s"):
                await soon(other)  # which noticed the hung batch
            with pytest.raises(ModelLostError, match="hangs"):
                await soon(first)
            runtime.open.set()
            encoding = await soon(scheduler.encode(["after"], PLAIN))
            np.testing.assert_array_equal(encoding.vectors, encoder.encode(["after"]))

    asyncio.run(run())


def test_an_observer_that_fails_does_not_stop_the_worker(encoder, caplog):
    class Failing(Observer):
        def on_batch(self, report: BatchReport) -> None:  # noqa: ARG002
            raise RuntimeError("cannot count")

    async def run() -> None:
        async with running(encoder, Failing()) as scheduler:
            for text in ("a", "bb", "ccc"):
                encoding = await soon(scheduler.encode([text], PLAIN))
                np.testing.assert_array_equal(encoding.vectors, encoder.encode([text]))

    asyncio.run(run())
    assert "a batch could not be handled" in caplog.text


def test_work_of_the_server_itself_is_bulk_and_never_refused(encoder):
    texts = ["a" * (i % 12 + 1) for i in range(1300)]
    recorder = Recorder()

    async def run() -> Any:
        async with running(encoder, recorder, max_queue_texts=10) as scheduler:
            own = ScheduledEncoder(encoder, scheduler)
            with pytest.raises(TextTooLongError, match=r"input\[1300\] has 13 tokens"):
                await asyncio.to_thread(own.encode, [*texts, "a" * 13])
            return await soon(asyncio.to_thread(own.encode, texts))

    np.testing.assert_array_equal(asyncio.run(run()), encoder.encode(texts))
    assert {report.lane for report in recorder.batches} == {"bulk"}


def test_closing_finishes_what_waits_and_refuses_the_rest(encoder, runtime):
    async def run() -> None:
        scheduler = Scheduler(encoder)
        scheduler.start()
        first = await held(scheduler, runtime)
        waiting = [asyncio.create_task(scheduler.encode([text], PLAIN)) for text in ("a", "bb")]
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(scheduler.close, 10))
        await asyncio.sleep(0.05)
        with pytest.raises(UnavailableError, match="shutting down"):
            await scheduler.encode(["late"], PLAIN)
        runtime.open.set()
        await soon(closing)
        for task in (first, *waiting):
            assert len((await task).vectors) == 1

    asyncio.run(run())


def test_closing_gives_up_after_the_grace_and_answers_everyone(encoder, runtime):
    async def run() -> None:
        scheduler = Scheduler(encoder)
        scheduler.start()
        tasks = [await held(scheduler, runtime), asyncio.create_task(scheduler.encode(["a"], PLAIN))]
        await asyncio.sleep(0)
        await soon(asyncio.to_thread(scheduler.close, 0.05))
        for outcome in await soon(asyncio.gather(*tasks, return_exceptions=True)):
            assert isinstance(outcome, UnavailableError)

    try:
        asyncio.run(run())
    finally:
        runtime.open.set()


def test_an_idle_scheduler_runs_no_timer(encoder):
    async def run() -> None:
        async with running(encoder) as scheduler:
            await soon(scheduler.encode(["a"], PLAIN))
            await asyncio.sleep(0)
            timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
            assert all(timer.cancelled() for timer in timers)
            assert scheduler.idle

    asyncio.run(run())


def test_requests_that_would_wait_too_long_are_refused(encoder, runtime):
    async def run() -> None:
        async with running(encoder, max_queue_s=0.5) as scheduler:
            for _ in range(40):  # what a text takes is learnt from the batches before
                runtime.delay_s = 0.02
                await soon(scheduler.encode(["a"], PLAIN))
            first = await held(scheduler, runtime)
            waiting = asyncio.create_task(scheduler.encode(["b"] * 60, PLAIN, priority="interactive"))
            await asyncio.sleep(0)
            with pytest.raises(
                OverloadedError, match=r"60 texts wait before this request, some \d+\.\d s of work"
            ) as caught:
                await scheduler.encode(["c"], PLAIN)
            work_s = float(re.search(r"some ([\d.]+) s", caught.value.message)[1])
            assert 1 <= caught.value.retry_after <= work_s + 2
            assert scheduler.overload() is not None
            runtime.delay_s = 0.0
            runtime.open.set()
            await soon(asyncio.gather(first, waiting))
            assert scheduler.overload() is None
            await soon(scheduler.encode(["c"], PLAIN))

    asyncio.run(run())
