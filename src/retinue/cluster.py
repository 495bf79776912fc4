"""The same work on many shards: one after another in this process, or on the nodes of a Ray cluster. The only Ray importer."""

from __future__ import annotations

import importlib
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import Any, TypeVar

from retinue.options import Engine
from retinue.schema import InputError

T = TypeVar("T")
U = TypeVar("U")

PLACE, RESULT = "place", "result"


class Spread:
    """Runs the work on every item, one after another; results come in the order of the items."""

    is_here = True

    def __call__(self, work: Callable[[T], U], items: Sequence[T], on_gpu: bool = False) -> Iterator[U]:
        """Work and items are told to other processes, and must be picklable; work done twice must do no harm.

        Args:
            work: What is done with an item.
            items: In the order of the results.
            on_gpu: Whether the work is better done on a GPU, where the nodes have some.
        """
        return map(work, items)


HERE = Spread()


class OnRay(Spread):
    """Runs the work in actors of a Ray cluster, an item at a time in each; all nodes see one file system.

    An actor holds one processor, so that a node works on as many shards at a time as it has processors. What ran on a
    node that dies is run again on another.
    """

    is_here = False

    def __init__(self) -> None:
        if find_spec("ray") is None or find_spec("pyarrow") is None:
            raise InputError(
                "engine=ray: Ray is not installed. Run: pip install 'retinue[ray]', or use engine=auto."
            )
        ray: Any = importlib.import_module("ray")
        if not ray.is_initialized():
            # the cluster of RAY_ADDRESS, or else one of this machine alone
            address = os.environ.get("RAY_ADDRESS")
            try:
                ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
            except (ConnectionError, ValueError) as error:
                raise InputError(f"engine=ray: RAY_ADDRESS={address} cannot be reached ({error}).") from error
        self.ray = ray

    def __call__(self, work: Callable[[T], U], items: Sequence[T], on_gpu: bool = False) -> Iterator[U]:
        """As `Spread`; items that end early wait for those before them, and an actor that is on a GPU has it alone."""
        if not items:
            return
        data: Any = importlib.import_module("ray.data")
        _quiet(data)
        ray = self.ray
        told = ray.put(work)
        has = ray.cluster_resources()
        gpus = int(on_gpu and has.get("GPU", 0) >= 1)
        actors = max(1, min(len(items), int(has.get("GPU" if gpus else "CPU", 1))))
        rows = data.from_items(
            [{PLACE: place, "item": pickle.dumps(item)} for place, item in enumerate(items)],
            override_num_blocks=len(items),
        ).map_batches(
            _Actor,
            fn_constructor_args=[told, os.getcwd()],
            batch_size=1,
            num_cpus=1,
            num_gpus=gpus,
            compute=data.ActorPoolStrategy(min_size=1, max_size=actors),
        )
        early: dict[int, bytes] = {}
        due = 0
        for row in rows.iter_rows():
            early[row[PLACE]] = row[RESULT]
            while due in early:
                done = pickle.loads(early.pop(due))
                if isinstance(done, InputError):
                    raise done
                yield done
                due += 1
        assert due == len(items), f"{len(items) - due} of {len(items)} pieces of work were lost"


class _Actor:
    """Does the work of one processor, a mistake in data or options being an answer as good as any."""

    def __init__(self, work: Any, folder: str) -> None:
        ray: Any = importlib.import_module("ray")
        os.chdir(folder)  # of the process that asks: paths in options are often relative
        self.work = ray.get(work) if isinstance(work, ray.ObjectRef) else work

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            done = self.work(pickle.loads(batch["item"][0]))
        except InputError as error:
            done = error
        return {PLACE: batch[PLACE], RESULT: [pickle.dumps(done)]}


def _quiet(data: Any) -> None:
    """Ray tells much of what it does and retries by itself."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def spread_of(engine: Engine) -> Spread:
    """How shards are worked on.

    Raises:
        InputError: Ray is asked for and not there.
    """
    return OnRay() if engine is Engine.ray else HERE
