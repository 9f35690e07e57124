"""A training that was stopped goes on as if it had not been."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

from bench.config import AugmentParams
from bench.data.coco import CocoDict, persons_of
from bench.errors import UserError
from bench.training import loop
from bench.training.loop import Fit, Length
from bench.training.resume import StateFile
from tests.harmful import Harmful
from tests.training.pairs import launch, run_pair
from tests.training.toys import NO_STATE, Recipe, Weights, make_model, make_samples, train

AUGMENT = AugmentParams(
    flip=0.5, half_body=0.3, rotation=40.0, rotation_probability=0.6, scale=0.35, shift=0.0, shift_probability=0.3
)
LENGTH = Length(epochs=3, batch_size=4, num_workers=0)
NUM_STEPS = 6  # of eight persons


def run(
    drawn: CocoDict,
    state_file: StateFile,
    weighting: str = "fixed",
    length: Length = LENGTH,
    fabric: Fabric | None = None,
) -> Fit:
    """A training with all that is random: views, order, dropout, stochastic depth."""
    persons, recipe = persons_of(drawn), Recipe(schedule="cosine")
    model = make_model(dropout=0.4, drop_path=0.3)
    torch.manual_seed(fabric.global_rank if fabric else 0)
    samples, calibration = make_samples(persons, AUGMENT), make_samples(persons[:3])
    weights = Weights(weighting=weighting)
    return train(model, samples, calibration, drawn, recipe, length, weights, state_file, fabric).result


def assert_same(found: Fit, wanted: Fit) -> None:
    assert found.history == wanted.history
    assert found.best_epoch == wanted.best_epoch
    assert all(torch.equal(found.state[key], value) for key, value in wanted.state.items())


class Eager(StateFile):
    """A state after every step."""

    @property
    def is_due(self) -> bool:
        return True


class Seldom(StateFile):
    """A state after every third step."""

    num_steps = 0

    @property
    def is_due(self) -> bool:
        self.num_steps += 1
        return self.num_steps % 3 == 0


class Stop(Exception):  # noqa: N818  # as a power cut
    pass


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Break a training at the beginning of a step, counted from 0."""
    plain, left = loop.Stepper.step, iter(range(step + 1))

    def step_or_stop(self: loop.Stepper, *arguments: Any) -> None:
        if next(left) == step:
            raise Stop
        plain(self, *arguments)

    monkeypatch.setattr(loop.Stepper, "step", step_or_stop)


def stop_and_go_on(drawn: CocoDict, file: Path, step: int, kind: type[StateFile] = Eager, **asked: Any) -> Fit:
    with pytest.MonkeyPatch.context() as monkeypatch:
        stop_at(monkeypatch, step)
        with pytest.raises(Stop):
            run(drawn, kind(file, "a"), **asked)
    return run(drawn, kind(file, "a"), **asked)


@pytest.mark.parametrize("step", range(NUM_STEPS))
def test_stopped_at_any_step_it_comes_to_the_same_bits(step: int, drawn: CocoDict, tmp_path: Path) -> None:
    assert_same(stop_and_go_on(drawn, tmp_path / "state.pt", step), run(drawn, NO_STATE))


def test_it_goes_on_where_it_was(drawn: CocoDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped before the fifth of six steps, two are left."""
    with monkeypatch.context() as breaking:
        stop_at(breaking, 4)
        with pytest.raises(Stop):
            run(drawn, Eager(tmp_path / "state.pt", "a"))
    plain, taken = loop.Stepper.step, []
    monkeypatch.setattr(loop.Stepper, "step", lambda *arguments: taken.append(plain(*arguments)))
    run(drawn, Eager(tmp_path / "state.pt", "a"))
    assert len(taken) == 2


def test_from_an_older_state_it_comes_to_the_same_bits_too(drawn: CocoDict, tmp_path: Path) -> None:
    assert_same(stop_and_go_on(drawn, tmp_path / "state.pt", 5, Seldom), run(drawn, NO_STATE))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_learned_sum_parts_of_batches_and_workers(workers: int, drawn: CocoDict, tmp_path: Path) -> None:
    length = LENGTH._replace(num_workers=workers, accumulate=2)
    asked: dict[str, Any] = {"weighting": "uncertainty", "length": length}
    wanted = run(drawn, NO_STATE, **asked)
    assert_same(stop_and_go_on(drawn, tmp_path / "state.pt", 3, **asked), wanted)


def test_an_ended_training_is_not_trained_again(
    drawn: CocoDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it may have failed."""
    wanted = run(drawn, Eager(tmp_path / "state.pt", "a"))
    monkeypatch.setattr(loop.Stepper, "step", None)
    assert_same(run(drawn, Eager(tmp_path / "state.pt", "a")), wanted)


def test_the_state_of_another_training_is_not_taken(drawn: CocoDict, tmp_path: Path) -> None:
    file = tmp_path / "state.pt"
    run(drawn, Eager(file, "a"), length=LENGTH._replace(epochs=1))
    assert StateFile(file, "a").load() is not None
    assert StateFile(file, "b").load() is None
    assert_same(run(drawn, Eager(file, "b")), run(drawn, NO_STATE))


def test_without_a_state_there_is_none(tmp_path: Path) -> None:
    assert StateFile(tmp_path / "none.pt", "a").load() is None


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-400])


BROKEN = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": cut,
    "text": lambda file: file.write_text("a state"),
    "other content": lambda file: torch.save([1, 2], file),
    "code": lambda file: torch.save({"asked": "a", "content": Harmful()}, file),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_state_is_named_and_nothing_of_it_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "state.pt"
    StateFile(file, "a").save({"weights": torch.ones(9)})
    BROKEN[kind](file)
    wanted = r"state\.pt: cannot be read as the state of a training \(\w+\): remove it, and the training begins anew$"
    with pytest.raises(UserError, match=wanted):
        StateFile(file, "a").load()
    assert not Path("harm").exists()


def test_large_states_are_written_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes three seconds is two percent of 150."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    state_file = StateFile(tmp_path / "state.pt", "a", seconds_between=60.0)
    assert not state_file.is_due
    now[0] = 60.0
    assert state_file.is_due
    save = torch.save

    def slowly(*arguments: Any) -> None:
        save(*arguments)
        now[0] += 3.0

    monkeypatch.setattr(torch, "save", slowly)
    state_file.save({})
    now[0] = 63.0 + 149.0
    assert not state_file.is_due
    now[0] = 63.0 + 150.0
    assert state_file.is_due


# Killed.

LONG = Length(epochs=6, batch_size=4, num_workers=0)


def train_in_a_process(drawn: CocoDict, folder: Path) -> None:
    torch.set_num_threads(1)
    result = run(drawn, Eager(folder / "state.pt", "a"), length=LONG)
    torch.save(result._asdict(), folder / "result.partial")
    os.replace(folder / "result.partial", folder / "result.pt")


@pytest.fixture(scope="module")
def uninterrupted(drawn: CocoDict, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fit, float]:
    """Its result, and the seconds it takes as a process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    spawn(drawn, folder).join()  # the server starts too
    start = time.monotonic()
    spawn(drawn, folder).join()
    return Fit(**torch.load(folder / "result.pt")), time.monotonic() - start


def spawn(drawn: CocoDict, folder: Path) -> multiprocessing.process.BaseProcess:
    """From a server that has imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=train_in_a_process, args=(drawn, folder))
    process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_it_comes_to_the_same_bits(
    seed: int, drawn: CocoDict, tmp_path: Path, uninterrupted: tuple[Fit, float]
) -> None:
    """By a signal that nobody can catch, as by the system where memory runs out."""
    wanted, seconds = uninterrupted
    process = spawn(drawn, tmp_path)
    time.sleep(np.random.default_rng(seed).uniform(0, 0.8 * seconds))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    last = spawn(drawn, tmp_path)
    last.join()
    assert last.exitcode == 0
    assert_same(Fit(**torch.load(tmp_path / "result.pt")), wanted)


# Two processes that share every batch.


def train_one_of_two(rank: int, drawn: CocoDict, folder: Path, strategy: str, stopped_at: int | None) -> None:
    """One of them kills itself before a step."""
    fabric = launch(strategy)
    plain, left = loop.Stepper.step, iter(range(10**6))

    def step(self: loop.Stepper, *arguments: Any) -> None:
        if next(left) == stopped_at and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, *arguments)

    loop.Stepper.step = step  # type: ignore[method-assign]
    result = run(drawn, Eager(folder / "state.pt", "a"), fabric=fabric)
    if rank == 0:
        torch.save(result._asdict(), folder / "result.pt")


def train_two(drawn: CocoDict, folder: Path, strategy: str, stopped_at: int | None = None) -> list[int | None]:
    """Their exit codes."""
    return run_pair(train_one_of_two, drawn, folder, strategy, stopped_at)


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "step"), [("ddp", 1), ("ddp", 4), ("fsdp", 4)])
def test_two_processes_go_on_together(strategy: str, step: int, drawn: CocoDict, tmp_path: Path) -> None:
    """One is killed, which ends the other; both go on, each with its own random numbers."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    assert train_two(drawn, whole, strategy) == [0, 0]
    first, second = train_two(drawn, broken, strategy, stopped_at=step)
    assert first not in (0, None)
    assert second == -signal.SIGKILL
    assert train_two(drawn, broken, strategy) == [0, 0]
    assert_same(Fit(**torch.load(broken / "result.pt")), Fit(**torch.load(whole / "result.pt")))
