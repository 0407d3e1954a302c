"""Parts of a job that several calls, on one machine or many, share between them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

from nnunet_lite.exceptions import ArgumentError
from nnunet_lite.utilities.logging import logger
from nnunet_lite.utilities.wording import counted

T = TypeVar("T")


class Part(NamedTuple):
    """Which cases one call works on: every `num_parts`-th, beginning with number `part_id`; all of them by default."""

    part_id: int = 0
    num_parts: int = 1

    @property
    def is_whole(self) -> bool:
        """Whether there is one part only."""
        return self.num_parts == 1

    def of(self, items: Iterable[T]) -> list[T]:
        """The items that belong to this part; every item belongs to exactly one."""
        return list(items)[self.part_id :: self.num_parts]

    def of_cases(self, cases: Iterable[T]) -> list[T]:
        """As `of`; says how many of how many cases these are, if there are several parts."""
        cases = list(cases)
        own = self.of(cases)
        if not self.is_whole:
            logger.info("Part %d of %d: %d of %s", self.part_id, self.num_parts, len(own), counted(len(cases), "case"))
        return own


WHOLE = Part()


def check_part(num_parts: int, part_id: int) -> Part:
    """The part of these numbers. Raises ArgumentError unless 0 <= part_id < num_parts."""
    if num_parts < 1:
        raise ArgumentError(f"num_parts {num_parts}: expected 1 or more")
    if not 0 <= part_id < num_parts:
        raise ArgumentError(
            f"part_id {part_id} of num_parts {num_parts}: parts are counted from 0, so expected 0 to {num_parts - 1}"
        )
    return Part(part_id, num_parts)
