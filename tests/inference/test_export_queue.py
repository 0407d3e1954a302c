"""What becomes of exports: told once, and no case is looked at again after its end is known."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from nnunet_lite.exceptions import DatasetError
from nnunet_lite.inference.export_queue import ExportQueue
from nnunet_lite.utilities.parallel import WorkerPool


class Counting(Future[Any]):
    """Knows how often it was asked."""

    asked = 0

    def done(self) -> bool:
        Counting.asked += 1
        return super().done()


def queue_of(number: int) -> tuple[ExportQueue, list[Counting]]:
    documents: Any = None
    queue = ExportQueue(documents, False, WorkerPool(0))
    futures = [Counting() for _ in range(number)]
    for place, future in enumerate(futures):
        queue._add(f"case{place}", future)
    return queue, futures


def test_every_case_is_told_once_and_failures_stay() -> None:
    queue, futures = queue_of(4)
    assert queue.news() == queue.failures() == []
    futures[2].set_exception(DatasetError("broken"))
    futures[1].set_result(None)
    assert [(ended.name, str(ended.error)) for ended in queue.news()] == [("case1", "None"), ("case2", "broken")]
    futures[0].set_exception(DatasetError("too"))
    queue.fail("case4", DatasetError("at once"))
    assert [failure.name for failure in queue.failures()] == ["case0", "case2", "case4"]
    assert [failure.name for failure in queue.failures()] == ["case0", "case2", "case4"]
    futures[3].set_result(None)
    assert [ended.name for ended in queue.as_they_end()] == ["case0", "case3", "case4"]
    assert queue.news() == list(queue.as_they_end()) == []


def test_what_has_ended_is_not_looked_at_again() -> None:
    queue, futures = queue_of(50)
    for future in futures:
        future.set_result(None)
    queue.news()
    queue.failures()
    Counting.asked = 0
    assert queue.news() == queue.failures() == list(queue.as_they_end()) == []
    assert Counting.asked == 0
