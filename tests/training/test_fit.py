"""Training from start to checkpoint: it learns, it resumes, it sees nothing later, and what it kept is what loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from retinue.events.timeline import is_known
from retinue.models.clocks import Clocks
from retinue.options import Accelerator
from retinue.schema import InputError
from retinue.sequences.readouts import Readouts
from retinue.sequences.resident import resident
from retinue.sequences.tokens import Tokens
from retinue.training import fit as fitting
from retinue.training.checkpoint import CARD, WEIGHTS, Trained, load_checkpoint, save_checkpoint
from retinue.training.data import Steps
from retinue.training.fit import KEY, fit_network
from retinue.training.held_out import HELD_OUT_FILE
from retinue.training.module import Step
from retinue.training.objective import count_scores
from retinue.training.watch import LAST
from tests.training import on_processes
from tests.training.made import END, small, task, tokens

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    folder = tmp_path_factory.mktemp("gru")
    return fit_network(task(), small(), folder), folder


def said(trained: Trained) -> tuple[Clocks, float]:
    """Its clocks of the held-out readouts, and its mean log score there."""
    made = task()
    assert made.inner is not None
    data = resident(made.tokens, made.inner, trained.vocabulary, trained.season)
    batch = data.batch(np.arange(len(data.lengths)))
    with torch.no_grad():
        clocks, _ = trained.network(batch)
    assert batch.targets is not None
    return clocks, float(count_scores(clocks, batch.targets).double().mean())


def looks(curve: pl.DataFrame) -> list[float]:
    return curve["log_score"].drop_nulls().to_list()


def test_it_learns(finished: tuple[Trained, Path]) -> None:
    trained, _ = finished
    assert trained.curve["step"].to_list() == list(range(1, 16))
    scores = looks(trained.curve)
    assert len(scores) == 3
    assert scores[-1] > scores[0]
    start = trained.curve["loss"].head(5).mean()
    end = trained.curve["loss"].tail(5).mean()
    assert isinstance(start, float)
    assert isinstance(end, float)
    assert end < start - 0.3


def test_what_was_best_is_what_is_kept_and_loads(finished: tuple[Trained, Path]) -> None:
    trained, folder = finished
    loaded = load_checkpoint(folder)
    for name, weight in trained.network.state_dict().items():
        assert torch.equal(weight, loaded.network.state_dict()[name]), name
    (one, score), (other, _) = said(trained), said(loaded)
    assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))
    assert score >= loaded.card["best_log_score"] - 1e-6, "the shapes settled on the same customers"
    assert loaded.card["best_log_score"] == max(looks(trained.curve))
    assert loaded.curve.equals(trained.curve)
    assert loaded.feature_names == ("tokens", "odd")
    assert loaded.vocabulary == trained.vocabulary
    np.testing.assert_array_equal(loaded.season.week, trained.season.week)


def test_the_folder_holds_no_pickle_and_says_what_made_it(finished: tuple[Trained, Path]) -> None:
    folder = finished[1]
    assert sorted(path.name for path in folder.iterdir()) == [CARD, "curve.parquet", HELD_OUT_FILE, WEIGHTS]
    card = json.loads((folder / CARD).read_text())
    assert card["data_fingerprint"] == tokens().fingerprint
    assert card["training_end"] == END.isoformat()
    assert card["options"]["training"]["steps"] == 15
    assert len(card["cutoffs"]) == 6
    assert card["git_commit"] is None or len(card["git_commit"]) == 40


def test_seed_decides_everything(finished: tuple[Trained, Path]) -> None:
    again = fit_network(task(), small())
    assert again.curve.equals(finished[0].curve)
    other = fit_network(task(), replace(small(steps=3), seed=1))
    assert other.curve["loss"][0] != again.curve["loss"][0]


def test_a_killed_run_goes_on_with_the_same_curve(
    finished: tuple[Trained, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = Steps._step
    seen: list[int] = []

    def failing(steps: Steps, index: int, buckets: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> Step:
        if index == 8:
            raise KeyboardInterrupt
        return built(steps, index, buckets)

    monkeypatch.setattr(Steps, "_step", failing)
    with pytest.raises(KeyboardInterrupt):
        fit_network(task(), small(), tmp_path)
    assert (tmp_path / LAST).is_file()
    assert not (tmp_path / CARD).exists()

    def noted(steps: Steps, index: int, buckets: list[np.ndarray[tuple[int], np.dtype[np.int64]]]) -> Step:
        seen.append(index)
        return built(steps, index, buckets)

    monkeypatch.setattr(Steps, "_step", noted)
    trained = fit_network(task(), small(), tmp_path)
    assert seen[0] == 5  # where the last look was
    assert trained.curve.equals(finished[0].curve)
    for name, weight in finished[0].network.state_dict().items():
        assert torch.equal(weight, trained.network.state_dict()[name]), name
    assert not (tmp_path / LAST).exists()
    assert not (tmp_path / KEY).exists()


def test_a_finished_run_is_kept_and_another_is_not(
    finished: tuple[Trained, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it trained")

    monkeypatch.setattr(fitting, "run_steps", never)
    kept = fit_network(task(), small(), finished[1])
    assert kept.curve.equals(finished[0].curve)
    with pytest.raises(AssertionError, match="it trained"):
        fit_network(task(), replace(small(), seed=5), finished[1])


def test_it_stops_when_the_score_stops_rising(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([-3.0, -1.0, -2.0, -1.5, -9.0, -9.0])
    monkeypatch.setattr(fitting._Judge, "__call__", lambda *_: next(scores))
    trained = fit_network(task(), small(steps=30, check_every=2, patience=2))
    assert trained.curve.height == 8
    assert trained.card["best_step"] == 4
    assert trained.card["best_log_score"] == -1.0
    monkeypatch.undo()
    untold = fit_network(task(inner=None), small(steps=4, check_every=2, patience=1))
    assert untold.card["best_step"] == 4
    assert untold.card["best_log_score"] is None


def test_nothing_after_the_end_is_seen(finished: tuple[Trained, Path]) -> None:
    whole = tokens()
    later = ~is_known(whole.available, END)
    assert later.any()
    other = replace(
        whole,
        money=np.where(later, 1e6, whole.money),
        numbers=np.where(later[:, None], np.float32(1e6), whole.numbers),
        kind=np.where(later, 0, whole.kind).astype(whole.kind.dtype),
    )
    assert not np.array_equal(other.kind, whole.kind)
    trained = fit_network(task(other), small(steps=15))
    assert trained.curve.equals(finished[0].curve)
    assert trained.vocabulary == finished[0].vocabulary


def test_the_same_of_every_order_of_money() -> None:
    """All amounts × 100 change no weight: a network reads numbers without units."""
    whole = tokens()

    def times(factor: float) -> Tokens:
        return replace(whole, money=whole.money * factor, numbers=(whole.numbers * factor).astype(np.float32))

    one, other = (fit_network(task(times(factor)), small(steps=5)) for factor in (1.0, 128.0))
    assert one.curve["loss"].to_list() == pytest.approx(other.curve["loss"].to_list(), rel=1e-5)
    assert other.vocabulary.order_value == pytest.approx(128 * one.vocabulary.order_value)


@pytest.mark.parametrize("context", [False, True])
def test_the_transformer_trains_too(context: bool, tmp_path: Path) -> None:
    options = small(steps=9, check_every=3, learning_rate=1e-3)
    encoder = type(options.model.encoder).transformer
    options = replace(options, model=replace(options.model, encoder=encoder, layers=2, context=context))
    trained = fit_network(task(), options, tmp_path)
    scores = looks(trained.curve)
    assert scores[-1] > scores[0]
    assert load_checkpoint(tmp_path).network.shape.encoder is encoder


@pytest.mark.parametrize("words", [{"accumulate": 2}, {"accumulate": 4, "recompute": True}])
def test_the_same_is_learnt_in_less_memory(words: dict[str, Any]) -> None:
    """Dropout and clipping included."""
    options = small(steps=6, buckets=4)
    thrifty = replace(options, trainer=replace(options.trainer, **words))
    expected, found = (fit_network(task(), each) for each in (options, thrifty))
    assert found.curve["step"].to_list() == expected.curve["step"].to_list()
    assert found.curve["loss"].to_list() == pytest.approx(expected.curve["loss"].to_list(), rel=1e-4)
    assert looks(found.curve) == pytest.approx(looks(expected.curve), rel=1e-4)


def test_a_killed_run_in_pieces_goes_on_with_the_same_curve(tmp_path: Path) -> None:
    options = small(steps=9, buckets=2)
    options = replace(options, trainer=replace(options.trainer, accumulate=2))
    with pytest.MonkeyPatch.context() as patch:
        on_processes.killed_before(7, patch)
        with pytest.raises(KeyboardInterrupt):
            fit_network(task(), options, tmp_path)
    assert fit_network(task(), options, tmp_path).curve.equals(fit_network(task(), options).curve)


def test_whole_families_may_be_dropped() -> None:
    options = small(steps=3)
    dropping = replace(options, model=replace(options.model, family_dropout=0.5))
    with pytest.raises(InputError, match="family_dropout"):
        fit_network(task(), dropping)
    plain, dropped = (fit_network(task(families=(0, 1)), each) for each in (options, dropping))
    assert plain.curve["loss"][2] != dropped.curve["loss"][2]


def test_mistakes_are_told(tmp_path: Path, finished: tuple[Trained, Path]) -> None:
    none = np.zeros(0, np.int64)
    nobody = Readouts(none, none, np.zeros((0, 2), np.float32), ("tokens", "odd"), END)
    with pytest.raises(InputError, match="no customer at any past cutoff"):
        fit_network(task(readouts=nobody), small())
    if not torch.cuda.is_available():
        on_gpu = replace(small(), trainer=replace(small().trainer, accelerator=Accelerator.gpu))
        with pytest.raises(InputError, match="trainer=cpu"):
            fit_network(task(), on_gpu)
    in_pieces = replace(small(), trainer=replace(small().trainer, accumulate=3))
    with pytest.raises(InputError, match=r"at most training\.buckets=2"):
        fit_network(task(), in_pieces)
    with pytest.raises(InputError, match="retinue train"):
        load_checkpoint(tmp_path)
    save_checkpoint(finished[0], tmp_path)
    whole = (tmp_path / WEIGHTS).read_bytes()
    (tmp_path / WEIGHTS).write_bytes(whole[:-8])
    with pytest.raises(InputError, match="cannot be read"):
        load_checkpoint(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(whole)
    card = finished[0].card | {"schema_version": -1}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(InputError, match="schema -1"):
        load_checkpoint(tmp_path)


def launched(out: Path, processes: int, stop: int = 0, *words: str) -> Path:
    """The folder that processes under torchrun have left."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    asked = [sys.executable, *launch, "-m", "tests.training.on_processes", str(out), str(stop), *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))}
    done = subprocess.run(
        asked, check=False, cwd=ROOT, env=environment, timeout=300, capture_output=True, text=True
    )
    assert (done.returncode != 0) == (stop > 0), done.stderr[-4_000:]
    return out


def assert_learnt(found: Trained, expected: Trained) -> None:
    assert found.curve["loss"].to_list() == pytest.approx(expected.curve["loss"].to_list(), abs=2e-4)
    assert looks(found.curve) == pytest.approx(looks(expected.curve), abs=2e-4)
    there, here = found.network.state_dict(), expected.network.state_dict()
    for each in (there, here):
        each["power_raw"] = each["power_raw"].sigmoid()  # of which anything far below zero is the same
    for name, weight in here.items():
        torch.testing.assert_close(there[name], weight, rtol=0, atol=2e-3, equal_nan=True, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
@pytest.mark.parametrize(
    ("words", "start"),
    [((), False), (("trainer.accumulate=2", "trainer.recompute=true", on_processes.TUNED), True)],
    ids=["plain", "thrifty"],
)
def test_two_processes_learn_what_one_does(
    strategy: str, words: tuple[str, ...], start: bool, tmp_path: Path
) -> None:
    """Whether they hold all weights or split them; from anew, and in pieces from a network that they stay near."""
    options = on_processes.asked([])
    alone = fit_network(task(), options, start=on_processes.begun(options) if start else None)
    launched(tmp_path, 2, 0, f"trainer.strategy={strategy}", *words)
    assert_learnt(load_checkpoint(tmp_path), alone)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_run_goes_on_with_other_processes(strategy: str, tmp_path: Path) -> None:
    """What two have begun one finishes, and the other way round, whether weights were split or not."""
    sharded = f"trainer.strategy={strategy}"
    options = on_processes.asked([])
    alone = fit_network(task(), options)
    launched(tmp_path / "two", 2, 12, sharded)
    assert (tmp_path / "two" / LAST).is_file()
    assert_learnt(fit_network(task(), options, tmp_path / "two"), alone)
    with pytest.MonkeyPatch.context() as patch:
        on_processes.killed_before(12, patch)
        with pytest.raises(KeyboardInterrupt):
            fit_network(task(), options, tmp_path / "one")
    assert (tmp_path / "one" / LAST).is_file()
    assert_learnt(load_checkpoint(launched(tmp_path / "one", 2, 0, sharded)), alone)
