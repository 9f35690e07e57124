"""Of weights and optimiser each of two processes holds its half, and a state of them is whole."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from bench.data.coco import CocoDict, persons_of
from bench.data.dataset import shuffled_loader
from bench.training.loop import Objective, Stepper
from bench.training.sharding import whole_state, whole_weights
from bench.training.watch import Watch
from tests.training.pairs import launch, run_pair
from tests.training.toys import LENGTH, Recipe, Weights, make_codec, make_model, make_samples


def num_held(tensor: Tensor) -> int:
    return tensor.to_local().numel() if isinstance(tensor, DTensor) else tensor.numel()


def step_and_count(rank: int, drawn: CocoDict, folder: Path) -> None:
    fabric, model = launch("fsdp"), make_model(embed_dim=64)
    stepper = Stepper.build(model, fabric, Objective(make_codec(model), Weights(), Recipe(), LENGTH), num_batches=1)
    batch = next(iter(shuffled_loader(make_samples(persons_of(drawn)), 4, 0, epoch=1)))
    stepper.step(batch, Watch(1, 1))
    weights = list(model.parameters())
    moments = [state["exp_avg"] for state in stepper.optimizer.optimizer.state.values()]
    found = {
        "share": sum(map(num_held, weights)) / sum(weight.numel() for weight in weights),
        "share_of_moments": sum(map(num_held, moments)) / sum(moment.numel() for moment in moments),
        "weights": whole_weights(model),
        "state": whole_state(*stepper.learning),
    }
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_halves_and_wholes(drawn: CocoDict, tmp_path: Path) -> None:
    assert run_pair(step_and_count, drawn, tmp_path) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for found in (first, second):
        assert found["share"] == pytest.approx(0.5, abs=0.03)  # single numbers cannot be halved
        assert found["share_of_moments"] == pytest.approx(0.5, abs=0.03)
    plain = {name: value.shape for name, value in make_model(embed_dim=64).state_dict().items()}
    assert {name: value.shape for name, value in first["weights"].items()} == plain
    names = {name.removeprefix("model.") for name in first["state"]["optimizer"]["state"]}
    assert names == {name for name, _ in make_model(embed_dim=64).named_parameters()}
    assert second["weights"] == {}  # the first has them for both
