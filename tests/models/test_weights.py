"""First weights: what is loaded is what the file holds, and everything else is an error of one line.

timm's weights come from a Hugging Face cache that the tests lay out; the network is never asked. Which tensor of a
published file goes where is tested in `test_key_maps`, here how files are read.
"""

import argparse
import json
import os
import pickle
import random
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models import PoseModel, build_model, weights
from models.weight_files import read_tensors
from models.weights import WeightsError, load_init, load_warmstart, read_history, save_warmstart, warmstart_file
from tests.models.small import HRNET, NUM_KEYPOINTS, TRANSPOSE, VITPOSE, build_small

REPO = Path(__file__).parents[2]
VIT_TAG = "vit_tiny_patch16_224.augreg_in21k_ft_in1k"
VIT_TINY = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3, "normalisation": "half"}


# Warm starts.


@pytest.fixture
def warmstart_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "WARMSTART_DIR", tmp_path)
    return tmp_path


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["vitpose-classic", "hrnet", "transpose", "transpose-h"])
def test_a_warm_start_fills_the_backbone_and_nothing_else(name: str, warmstart_dir: Path) -> None:
    source = build_small(name, seed=0)
    with torch.no_grad():
        for value in source.backbone.state_dict().values():
            value.add_(1)  # batch statistics too are no longer those of a fresh model
    save_warmstart(source.backbone, warmstart_file(name.partition("-")[0]), [{"stage": "test"}])
    warm, fresh = build_small(name, seed=1, init="warmstart"), build_small(name, seed=1)
    for key, value in source.backbone.state_dict().items():
        if key == "position":
            continue
        wanted = value.half().float() if value.is_floating_point() else value
        assert torch.equal(warm.backbone.state_dict()[key], wanted), key
        assert warm.backbone.state_dict()[key].dtype == value.dtype
    for part in ("decoder", "presence_head"):
        other = fresh.get_submodule(part).state_dict()
        found = warm.get_submodule(part).state_dict()
        assert found.keys() == other.keys()
        assert all(found[key].shape == other[key].shape for key in found)
        assert any(not torch.equal(found[key], value) for key, value in source.get_submodule(part).state_dict().items())


def test_a_warm_start_leaves_a_fixed_position_embedding_to_the_model(warmstart_dir: Path) -> None:
    """So that it is exact, and another input size gets its own."""
    save_warmstart(build_small("transpose").backbone, warmstart_file("transpose"), [])
    for size in ((64, 96), (96, 96)):
        warm = build_small("transpose", input_size=size, init="warmstart")
        fresh = build_small("transpose", input_size=size)
        assert torch.equal(warm.state_dict()["backbone.position"], fresh.state_dict()["backbone.position"])


def test_a_warm_start_is_half_the_size_and_says_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "vitpose.safetensors"
    history = [{"stage": "warmstart", "best_epoch": 3}, {"stage": "warmstart", "params": {"lr": 1e-3}}]
    save_warmstart(backbone(), file, history)
    assert read_history(file) == history
    with safe_open(file, "pt") as content:
        assert json.loads(content.metadata()["history"]) == history  # for who has safetensors and not this project
        assert content.get_tensor("0.weight").dtype == torch.float16
        assert content.get_tensor("1.num_batches_tracked").dtype == torch.int64
    assert [path.name for path in file.parent.iterdir()] == ["vitpose.safetensors"]


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"history": "["}], ids=["none", "another's", "broken"])
def test_weights_of_unknown_origin_have_no_history(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    file = tmp_path / "vitpose.safetensors"
    save_file(backbone().state_dict(), file, metadata)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(file))}: its history cannot be read"):
        read_history(file)


def write_state(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def write(file: Path) -> None:
        state = backbone().state_dict()
        change(state)
        save_file(state, file)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda _: None, "missing; make it with `python -m bench.stages.warmstart vitpose`"),
        (lambda file: file.write_bytes(b"no tensors here"), r"cannot be read as safetensors \(.*\)"),
        (lambda file: file.write_bytes(b""), r"cannot be read as safetensors \(.*\)"),
        (write_state(lambda state: state.pop("0.weight")), "1 of 7 tensors are missing, the first is '0.weight': .*"),
        (
            write_state(lambda state: state.update(x=torch.ones(1))),
            "1 of 7 tensors are left over, the first is 'x': .*",
        ),
        (
            write_state(lambda state: state.update({"1.bias": torch.ones(9), "0.bias": torch.ones(9)})),
            "2 of 7 tensors are of another shape, the first is '0.bias': .*",
        ),
    ],
    ids=["no file", "no safetensors", "empty file", "missing tensor", "left over tensor", "misshapen tensor"],
)
def test_a_warm_start_that_does_not_fit_is_one_line_that_names_it(
    write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    file, model = tmp_path / "vitpose.safetensors", backbone()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    write(file)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(file))}: {message}$") as caught:
        load_warmstart(model, file)
    assert "\n" not in str(caught.value)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_a_warm_start_of_a_vit_is_interpolated_to_another_input_size(warmstart_dir: Path) -> None:
    """A plane stays a plane, and all else stays as it is."""
    source = build_small("vitpose-classic", input_size=(64, 96)).backbone
    rows, columns = torch.meshgrid(torch.arange(12.0), torch.arange(8.0), indexing="ij")
    plane = (rows / 12 - columns / 8).flatten()[:, None].expand(-1, 16)
    with torch.no_grad():
        source.vit.pos_embed[:, 1:] = plane
    save_warmstart(source, warmstart_file("vitpose"), [])
    warm = build_small("vitpose-classic", input_size=(96, 96), init="warmstart").backbone
    grid = warm.vit.pos_embed[0, 1:, 0].unflatten(0, (12, 12)).detach()
    torch.testing.assert_close(grid[2:-2, 2:-2].diff(dim=0), torch.full((7, 8), 1 / 12), atol=2e-3, rtol=0)
    torch.testing.assert_close(grid[2:-2, 3:-3].diff(dim=1), torch.full((8, 5), -1 / 12), atol=5e-3, rtol=0)
    torch.testing.assert_close(warm.vit.pos_embed[:, :1], source.vit.pos_embed[:, :1], atol=1e-4, rtol=1e-3)
    assert torch.equal(warm.vit.norm.weight, source.vit.norm.weight)


def test_a_warm_start_of_other_sizes_is_refused(warmstart_dir: Path) -> None:
    save_warmstart(build_small("vitpose-classic").backbone, warmstart_file("vitpose"), [])
    with pytest.raises(WeightsError, match=r"of another shape.*the warm start has other sizes than the model"):
        build_small("vitpose-classic", init="warmstart", embed_dim=24)
    with pytest.raises(WeightsError, match=r"are missing, the first is 'vit\.blocks\.2\."):
        build_small("vitpose-classic", init="warmstart", depth=3)


def test_a_truncated_warm_start_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "vitpose.safetensors"
    save_warmstart(backbone(), file, [])
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        load_warmstart(backbone(), file)


# Weights of timm.


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network. The constants are what HF_HOME and HF_HUB_OFFLINE set at start."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def publish(hub: Path, tag: str, state: dict[str, Tensor]) -> Path:
    """Lay weights out as a download of `timm/<tag>` leaves them."""
    commit = "0" * 40
    folder = hub / f"models--timm--{tag}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    save_file(state, snapshot / "model.safetensors")
    return snapshot / "model.safetensors"


def classifier_state(tag: str) -> dict[str, Tensor]:
    """What is published: an ImageNet classifier, here with uneven batch statistics."""
    torch.manual_seed(3)
    state = timm.create_model(tag.partition(".")[0]).state_dict()
    return {key: torch.rand_like(value) if "running" in key else value for key, value in state.items()}


def build_with(model: str, sizes: dict[str, Any], init: str, **changes: Any) -> PoseModel:
    torch.manual_seed(0)
    arguments = sizes | {"init": init} | changes
    return build_model(model, input_size=(64, 96), num_keypoints=NUM_KEYPOINTS, presence_head=None, **arguments)


TAGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "backbone.vit.": (VIT_TAG, "vitpose", VITPOSE | VIT_TINY),
    "backbone.stages.": ("hrnet_w18_small.ms_in1k", "hrnet", HRNET),
    "backbone.stem.": ("resnet18.a1_in1k", "transpose", TRANSPOSE),
}


@pytest.mark.parametrize("trunk", TAGS)
def test_weights_of_timm_fill_the_trunk_through_the_models_builder(trunk: str, hub: Path) -> None:
    tag, name, sizes = TAGS[trunk]
    state = classifier_state(tag)
    publish(hub, tag, state)
    loaded, fresh = (build_with(name, sizes, init).state_dict() for init in (f"timm:{tag}", "random"))
    for key, value in loaded.items():
        if not key.startswith(trunk):
            assert torch.equal(value, fresh[key]), key
        elif not key.endswith("pos_embed"):
            assert torch.equal(value, state[key.removeprefix(trunk)]), key


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("no_such_model.at_all", "timm [0-9.]+ knows no such weights$"),
        ("vit_tiny_patch16_224.no_such_tag", "timm [0-9.]+ knows no such weights$"),
        ("", "timm [0-9.]+ knows no such weights$"),
    ],
)
def test_a_tag_that_cannot_be_meant_is_refused(tag: str, message: str) -> None:
    with pytest.raises(WeightsError, match=f"^init 'timm:{tag}': {message}") as caught:
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{tag}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("model", "sizes", "message"),
    [
        ("hrnet", HRNET, r" \(ResNet for ImageNet\): wanted weights of hrnet$"),
        (
            "transpose",
            TRANSPOSE | {"backbone": "resnet50"},
            r" \(ResNet for ImageNet\): \d+ of \d+ tensors are missing, the first is 'backbone\.stem\.",
        ),
    ],
)
def test_weights_of_another_model_are_refused(model: str, sizes: dict[str, Any], message: str, hub: Path) -> None:
    publish(hub, "resnet18.a1_in1k", classifier_state("resnet18.a1_in1k"))
    with pytest.raises(WeightsError, match=f"^init 'timm:resnet18.a1_in1k'{message}"):
        build_with(model, sizes, "timm:resnet18.a1_in1k")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"embed_dim": 96},
            r"149 of 149 tensors are of another shape, the first is 'blocks\.0\.attn\.proj\.bias': found",
        ),
        ({"depth": 13}, r"12 of 161 tensors are missing, the first is 'backbone\.vit\.blocks\.12\."),
        ({"depth": 11}, r"12 of \d+ tensors are left over, the first is 'blocks\.11\."),
        ({"num_heads": 12}, "trained with num_heads 3, found 12"),
    ],
)
def test_weights_of_another_size_are_refused(changes: dict[str, int], message: str, hub: Path) -> None:
    publish(hub, VIT_TAG, classifier_state(VIT_TAG))
    with pytest.raises(WeightsError, match=rf"^init 'timm:{VIT_TAG}'( \(.*\))?: {message}") as caught:
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{VIT_TAG}", **changes)
    assert "\n" not in str(caught.value)


def test_weights_that_read_other_pixels_are_refused_before_they_are_fetched() -> None:
    message = r"trained with mean \(0.5, 0.5, 0.5\) and std \(0.5, 0.5, 0.5\), found normalisation imagenet: "
    with pytest.raises(WeightsError, match=f"^init 'timm:{VIT_TAG}': {message}set normalisation to half$"):
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{VIT_TAG}", normalisation="imagenet")


def test_pixels_that_no_normalisation_makes_are_named() -> None:
    tag = "vit_base_patch16_clip_224.openai"
    with pytest.raises(WeightsError, match=rf"^init 'timm:{tag}': trained with .*: which is none of imagenet, half$"):
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{tag}")


def test_without_network_or_cache_the_error_says_how_to_get_them(hub: Path) -> None:
    with pytest.raises(WeightsError, match=f"^init 'timm:{VIT_TAG}': cannot load the published weights") as caught:
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{VIT_TAG}")
    message = str(caught.value)
    assert f"timm.create_model('{VIT_TAG}', pretrained=True)" in message
    assert "HF_HOME" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"no tensors here", None], ids=["empty", "no safetensors", "truncated"])
def test_a_broken_download_is_refused(content: bytes | None, hub: Path) -> None:
    file = publish(hub, VIT_TAG, classifier_state(VIT_TAG))
    file.write_bytes(file.read_bytes()[:-8] if content is None else content)
    with pytest.raises(WeightsError, match="cannot load the published weights") as caught:
        build_with("vitpose", VITPOSE | VIT_TINY, f"timm:{VIT_TAG}")
    assert "\n" not in str(caught.value)


def test_hf_home_is_where_the_weights_are_looked_for(tmp_path: Path) -> None:
    """As a user without network has it: the environment says where, in a process of its own."""
    state = classifier_state("resnet18.a1_in1k")
    publish(tmp_path / "hub", "resnet18.a1_in1k", state)
    code = (
        "from safetensors.torch import save_file\n"
        "from models import build_model\n"
        f"sizes = {TRANSPOSE | {'init': 'timm:resnet18.a1_in1k'}}\n"
        "model = build_model('transpose', input_size=(64, 96), num_keypoints=17, presence_head=None, **sizes)\n"
        "state = {name: value.contiguous() for name, value in model.state_dict().items()}\n"
        f"save_file(state, {str(tmp_path / 'loaded.safetensors')!r})\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environment, check=True)
    loaded = load_file(tmp_path / "loaded.safetensors")
    assert torch.equal(loaded["backbone.stem.layer2.1.conv2.weight"], state["layer2.1.conv2.weight"])


# Reading files.


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {"weight": torch.randn(3, 4), "bias": torch.randn(4).half(), "count": torch.tensor(7)}


def assert_read(path: Path, wanted: dict[str, Tensor]) -> None:
    found = read_tensors(path)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
def test_checkpoints_of_every_age_are_read(wrapper: str | None, is_zip: bool, tmp_path: Path) -> None:
    content = {wrapper: tensors(), "epoch": 3, "optimizer": {"state": {}}} if wrapper else tensors()
    torch.save(content, tmp_path / "file.pth", _use_new_zipfile_serialization=is_zip)
    assert_read(tmp_path / "file.pth", tensors())


def test_a_checkpoint_that_names_its_model_is_read(tmp_path: Path) -> None:
    """HRNet's and TransPose's `model` is a name; their weights are in `state_dict`."""
    torch.save({"model": "pose_hrnet", "state_dict": tensors()}, tmp_path / "file.pth")
    assert_read(tmp_path / "file.pth", tensors())


def test_parameters_are_read_as_plain_tensors(tmp_path: Path) -> None:
    torch.save({name: nn.Parameter(value, requires_grad=False) for name, value in tensors().items()}, tmp_path / "x.pt")
    assert_read(tmp_path / "x.pt", tensors())
    torch.save({"weight": nn.Parameter(torch.ones(2))}, tmp_path / "x.pt")
    assert not read_tensors(tmp_path / "x.pt")["weight"].requires_grad


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_of_transformers_is_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (save_file if name.endswith("safetensors") else torch.save)(tensors(), tmp_path / name)
    assert_read(tmp_path, tensors())


def write_shards(folder: Path, changes: dict[str, str] | None = None) -> Path:
    """Tensors in two files and an index beside them."""
    names = {
        "weight": "model-1-of-2.safetensors",
        "bias": "model-2-of-2.safetensors",
        "count": "model-2-of-2.safetensors",
    }
    for file in set(names.values()):
        save_file({name: value for name, value in tensors().items() if names[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names | (changes or {})}))
    return index


def test_a_folder_of_several_files_is_read_by_its_index(tmp_path: Path) -> None:
    write_shards(tmp_path)
    assert_read(tmp_path, tensors())


class Foreign:
    """Stands for an object of a library that is not installed here; `named` gives it the library's name for it."""

    def __init__(self) -> None:
        self.values = np.arange(3.0)


def named(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return type(attribute, (Foreign,), {"__module__": module, "__qualname__": attribute})()


def write_with_neighbour(file: Path, neighbour: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint with something beside its weights, whose library exists only while it is written."""
    kind = type(neighbour)
    with monkeypatch.context() as patch:
        if isinstance(neighbour, Foreign):
            parts = kind.__module__.split(".")
            for count in range(len(parts)):
                module = type(sys)(".".join(parts[: count + 1]))
                setattr(module, kind.__name__, kind)
                patch.setitem(sys.modules, module.__name__, module)
        torch.save({"state_dict": tensors(), "message_hub": {"log": [neighbour]}}, file)


@pytest.mark.parametrize(
    "neighbour",
    [
        np.float64(0.758),
        np.arange(17.0),
        np.array(["nose"]),
        argparse.Namespace(lr=1e-3),
        named("mmengine.logging.history_buffer.HistoryBuffer"),
        named("mmengine.logging.message_hub.MessageHub"),
    ],
    ids=[
        "numpy scalar",
        "numpy array",
        "numpy strings",
        "command line",
        "curve of mmengine",
        "message hub of mmengine",
    ],
)
def test_harmless_neighbours_of_the_weights_are_passed_over(
    neighbour: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_with_neighbour(tmp_path / "file.pth", neighbour, monkeypatch)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "file.pth", weights_only=True)  # else there is nothing to pass over
    assert_read(tmp_path / "file.pth", tensors())


class MethodOfCurve:
    """How a curve of mmengine pickles its own methods: fetched from its class by name."""

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (np.ndarray, "min")


def test_methods_by_name_are_passed_over_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_with_neighbour(tmp_path / "file.pth", MethodOfCurve(), monkeypatch)
    assert_read(tmp_path / "file.pth", tensors())


def test_stand_ins_are_gone_after_reading(tmp_path: Path) -> None:
    torch.save(tensors(), tmp_path / "file.pth")
    before = set(torch.serialization.get_safe_globals())
    read_tensors(tmp_path / "file.pth")
    assert set(torch.serialization.get_safe_globals()) == before


class Payload:
    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("place", ["beside", "within"])
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {}", "posix.system"),
        (subprocess.call, ["touch", "{}"], "commands.call"),
        (eval, "open('{}', 'w')", "eval"),
        (exec, "open('{}', 'w')", "exec"),
        (getattr, (os, "system"), "posix.system"),
    ],
    ids=["system", "subprocess", "eval", "exec", "getattr"],
)
def test_a_file_that_would_run_code_is_refused_and_runs_nothing(
    function: Callable[..., object], argument: Any, name: str, place: str, is_zip: bool, tmp_path: Path
) -> None:
    trace, file = tmp_path / "trace", tmp_path / "model.pth"
    if function is getattr:
        payload = Payload(os.system, f"touch {trace}")
    elif isinstance(argument, list):
        payload = Payload(function, [part.format(trace) for part in argument])
    else:
        payload = Payload(function, argument.format(trace))
    content: dict[str, Any] = {"state_dict": tensors()}
    (content if place == "beside" else content["state_dict"])["x"] = payload
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    wanted = f"^{re.escape(str(file))}: refused: it would run {re.escape(name)}, wanted tensors only$"
    with pytest.raises(WeightsError, match=wanted):
        read_tensors(file)
    assert not trace.exists()
    torch.load(file, weights_only=False)  # the payload is a real one
    assert trace.exists()


class Fetched:
    """Pickles as what `getattr` gives."""

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (argparse.Namespace, "__init__")

    def __call__(self) -> None:
        raise AssertionError


def test_what_a_stand_in_gives_cannot_be_called(tmp_path: Path) -> None:
    """`getattr` may be named, and fetches nothing."""
    file = tmp_path / "model.pth"
    torch.save({"state_dict": tensors(), "x": Payload(Fetched())}, file)
    with pytest.raises(
        WeightsError, match=r"cannot be read as a file of torch \(Trying to call reduce for unrec.*Inert"
    ):
        read_tensors(file)


def write_zip(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("readme.txt", "no tensors")


READING = r"cannot be read as a file of torch \(.*\)"


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("x.pth", lambda _: None, "missing, wanted a file or folder of weights"),
        ("x.pth", lambda file: file.write_bytes(b""), READING),
        ("x.pth", lambda file: file.write_bytes(b"no tensors here"), READING),
        ("x.pth", lambda file: file.write_bytes(random.Random(0).randbytes(4096)), READING),
        ("x.pth", write_zip, READING),
        ("x.pth", lambda file: torch.save([1, 2], file), "holds no tensors by name, wanted a state dict, .*"),
        ("x.pth", lambda file: torch.save({"state_dict": {}}, file), "holds no tensors by name, wanted .*"),
        ("x.safetensors", lambda file: file.write_bytes(b""), r"cannot be read as safetensors \(.*\)"),
        ("x.safetensors", lambda file: file.write_bytes(b"no tensors here"), r"cannot be read as safetensors \(.*\)"),
        (
            "x.onnx",
            lambda file: file.write_bytes(b"x"),
            r"found a file \.onnx, wanted \.safetensors, \.pth, \.pt, \.bin",
        ),
        ("x", lambda file: file.write_bytes(b"x"), "found a file without ending, wanted .*"),
        ("x", lambda file: file.mkdir(), "a folder without weights, wanted one of model.safetensors, .* in it"),
    ],
    ids=[
        "no file",
        "empty",
        "text",
        "noise",
        "another zip",
        "a list",
        "no weights",
        "empty safetensors",
        "text as safetensors",
        "another format",
        "no ending",
        "empty folder",
    ],
)
def test_what_cannot_be_read_is_one_line_that_names_it(
    name: str, write: Callable[[Path], object], message: str, tmp_path: Path
) -> None:
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(tmp_path / name))}: {message}$") as caught:
        read_tensors(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"cannot be read \(.*\), wanted weight_map: tensor to file"),
        ("{}", r"cannot be read \(.*\), wanted weight_map: tensor to file"),
        ('{"weight_map": [1]}', r"cannot be read \(.*\), wanted weight_map: tensor to file"),
        ('{"weight_map": {"a": "../x.bin"}}', r"names the file '\.\./x\.bin', wanted files of its own folder"),
    ],
)
def test_a_broken_index_is_refused(content: str, message: str, tmp_path: Path) -> None:
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(content)
    with pytest.raises(WeightsError, match=f"^{re.escape(str(index))}: {message}$"):
        read_tensors(tmp_path)


def test_an_index_of_files_or_tensors_that_are_not_there_is_refused(tmp_path: Path) -> None:
    index = write_shards(tmp_path, {"other": "model-1-of-2.safetensors"})
    with pytest.raises(
        WeightsError, match=f"^{re.escape(str(index))}: 1 of its 4 tensors are missing, the first is 'other'"
    ):
        read_tensors(tmp_path)
    (tmp_path / "model-2-of-2.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"model-2-of-2\.safetensors: missing, wanted a file or folder of weights$"):
        read_tensors(tmp_path)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["zip", "before torch 1.6", "safetensors"])
def test_damage_anywhere_is_an_error_of_ours_or_other_numbers(kind: str, tmp_path: Path) -> None:
    """Cut at, or one byte changed at, many places: never another exception, never another set of types."""
    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(tensors(), whole)
    else:
        torch.save({"state_dict": tensors()}, whole, _use_new_zipfile_serialization=kind == "zip")
    content, generator = whole.read_bytes(), random.Random(0)
    file = tmp_path / f"damaged.{'safetensors' if kind == 'safetensors' else 'pth'}"
    outcomes = set()
    for _ in range(200):
        place = generator.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << generator.randrange(8)
        for damaged in (content[:place], bytes(changed)):
            file.write_bytes(damaged)
            try:
                found = read_tensors(file)
            except WeightsError as error:
                assert "\n" not in str(error)
                outcomes.add("refused")
            else:
                assert all(type(value) is Tensor for value in found.values())
                outcomes.add("read")
    assert outcomes == {"refused", "read"}


def test_first_weights_that_cannot_be_read_leave_the_backbone_as_it_was(tmp_path: Path) -> None:
    model = build_small("hrnet")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        WeightsError, match=r"^models/published/none\.pth: missing, wanted a file or folder of weights$"
    ):
        load_init(model.backbone, "hrnet", "models/published/none.pth", "imagenet")
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
