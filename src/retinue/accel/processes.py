"""The processes that share a job, and the threads of one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def process_rank() -> int:
    """Which of the processes that share one job this is, as torchrun, Slurm or Lightning says it; 0 where alone."""
    if "RANK" not in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1":
        return int(os.environ.get("SLURM_PROCID", "0"))
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def process_count() -> int:
    """How many processes share one job, as torchrun or Slurm says it; 1 where alone."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_NTASKS", "1")))


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, for problems so small that waking another costs more than it brings (also a decorator)."""
    import torch  # noqa: PLC0415  as above

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def side_by_side(work: Callable[[T], U], items: Sequence[T]) -> list[U]:
    """What a function makes of each item, in order: as many at a time as torch has threads, each on one of them.

    Sooner done than one after another on all threads, where each is small, and the same to the last bit whatever
    their number.
    """
    import torch  # noqa: PLC0415  as above

    workers = min(torch.get_num_threads(), len(items))
    with one_thread():  # what threads of others begin with is one number for all, and set anew at the end
        if workers <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, items))
