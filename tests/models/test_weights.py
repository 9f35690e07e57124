"""First weights: what is loaded is what the file holds, and everything else is an error of one line.

"Published" weights come from a Hugging Face cache that the tests lay out; the network is never asked.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from models import PoseModel, build_model, weights
from models.hrnet import HRNetBackbone
from models.transpose import TransPoseBackbone
from models.vitpose import VitBackbone
from models.weights import WeightsError, create_timm, load_warmstart, read_history, save_warmstart, warmstart_file
from tests.models.small import HEAD, NUM_KEYPOINTS, VITPOSE, build_small

REPO = Path(__file__).parents[2]
VIT_TAG = "vit_base_patch16_224.augreg_in21k_ft_in1k"
TINY_VIT = {"patch_size": 16, "embed_dim": 16, "depth": 2, "num_heads": 2}


# Warm starts.


@pytest.fixture
def warmstart_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(weights, "WARMSTART_DIR", tmp_path)
    return tmp_path


def backbone() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("name", ["vitpose-classic", "hrnet", "transpose"])
def test_a_warm_start_fills_the_backbone_and_nothing_else(name: str, warmstart_dir: Path) -> None:
    source = build_small(name, seed=0)
    with torch.no_grad():
        for value in source.backbone.state_dict().values():
            value.add_(1)  # batch statistics too are no longer those of a fresh model
    save_warmstart(source.backbone, warmstart_file(name.partition("-")[0]), [{"stage": "test"}])
    warm, fresh = build_small(name, seed=1, init="warmstart"), build_small(name, seed=1)
    for key, value in source.backbone.state_dict().items():
        wanted = value.half().float() if value.is_floating_point() else value
        assert torch.equal(warm.backbone.state_dict()[key], wanted), key
        assert warm.backbone.state_dict()[key].dtype == value.dtype
    for part in ("decoder", "presence_head"):
        other = fresh.get_submodule(part).state_dict()
        found = warm.get_submodule(part).state_dict()
        assert found.keys() == other.keys()
        assert all(found[key].shape == other[key].shape for key in found)
        assert any(not torch.equal(found[key], value) for key, value in source.get_submodule(part).state_dict().items())


def test_a_warm_start_is_half_the_size_and_says_where_it_comes_from(tmp_path: Path) -> None:
    file = tmp_path / "new" / "vitpose.safetensors"
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


# Published weights.


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


def classifier_state(name: str, **sizes: object) -> dict[str, Tensor]:
    """What is published: an ImageNet classifier, here with small sizes and uneven batch statistics."""
    torch.manual_seed(3)
    state = timm.create_model(name, **sizes).state_dict()
    return {key: torch.rand_like(value) if "running" in key else value for key, value in state.items()}


def vit(init: str, input_size: tuple[int, int] = (64, 96), **changes: int) -> VitBackbone:
    torch.manual_seed(0)
    return VitBackbone(input_size, init, **(TINY_VIT | changes))


def test_a_published_vit_is_loaded_and_its_position_embedding_fitted_to_the_input(hub: Path) -> None:
    state = classifier_state("vit_base_patch16_224", **TINY_VIT)
    publish(hub, VIT_TAG, state)
    loaded = vit(f"timm:{VIT_TAG}").vit.state_dict()
    for key, value in loaded.items():
        if key != "pos_embed":
            assert torch.equal(value, state[key]), key
    wanted = state["pos_embed"][:, 1:].mT.reshape(1, 16, 14, 14)
    wanted = functional.interpolate(wanted, size=(6, 4), mode="bicubic", antialias=True, align_corners=False)
    assert torch.equal(loaded["pos_embed"][:, :1], state["pos_embed"][:, :1])
    torch.testing.assert_close(loaded["pos_embed"][:, 1:], wanted.flatten(2).mT)


def test_at_the_published_size_the_position_embedding_is_untouched(hub: Path) -> None:
    state = classifier_state("vit_base_patch16_224", **TINY_VIT)
    publish(hub, VIT_TAG, state)
    assert torch.equal(vit(f"timm:{VIT_TAG}", (224, 224)).vit.state_dict()["pos_embed"], state["pos_embed"])


CONVOLUTIONAL: dict[str, tuple[str, Callable[[str], nn.Module]]] = {
    "hrnet": ("hrnet_w18_small.ms_in1k", lambda init: HRNetBackbone("hrnet_w18_small", init).stages),
    "transpose": (
        "resnet18.a1_in1k",
        lambda init: (
            TransPoseBackbone(
                (64, 96), "resnet18", init, embed_dim=8, depth=1, num_heads=2, feedforward_dim=8, dropout=0.0
            ).stem
        ),
    ),
}


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_published_convolutional_weights_are_loaded_with_their_statistics(name: str, hub: Path) -> None:
    tag, build = CONVOLUTIONAL[name]
    state = classifier_state(tag.partition(".")[0])
    publish(hub, tag, state)
    loaded = build(f"timm:{tag}").state_dict()
    assert any("running_var" in key for key in loaded)
    for key, value in loaded.items():
        assert torch.equal(value, state[key]), key


def test_published_weights_reach_the_model_through_its_builder(hub: Path) -> None:
    state = classifier_state("vit_base_patch16_224", **TINY_VIT)
    publish(hub, VIT_TAG, state)
    sizes = VITPOSE | TINY_VIT | {"init": f"timm:{VIT_TAG}"}
    model: PoseModel = build_model(
        "vitpose", input_size=(64, 96), num_keypoints=NUM_KEYPOINTS, presence_head=HEAD, **sizes
    )
    assert torch.equal(model.state_dict()["backbone.vit.blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("tag", "message"),
    [
        ("no_such_model.at_all", "timm [0-9.]+ knows no such weights$"),
        ("vit_base_patch16_224.no_such_tag", "timm [0-9.]+ knows no such weights$"),
        ("", "timm [0-9.]+ knows no such weights$"),
        ("hrnet_w32.ms_in1k", "these are weights of hrnet_w32, wanted weights of vit_base_patch16_224$"),
        ("vit_small_patch16_224.augreg_in1k", "these are weights of vit_small_patch16_224, wanted weights of"),
    ],
)
def test_a_tag_that_cannot_be_meant_is_refused(tag: str, message: str) -> None:
    with pytest.raises(WeightsError, match=f"^init 'timm:{tag}': {message}") as caught:
        create_timm("vit_base_patch16_224", f"timm:{tag}")
    assert "\n" not in str(caught.value)


def test_without_network_or_cache_the_error_says_how_to_get_them(hub: Path) -> None:
    with pytest.raises(WeightsError, match=f"^init 'timm:{VIT_TAG}': cannot load the published weights") as caught:
        vit(f"timm:{VIT_TAG}")
    message = str(caught.value)
    assert f"timm.create_model('{VIT_TAG}', pretrained=True)" in message
    assert "HF_HOME" in message
    assert "\n" not in message


@pytest.mark.parametrize("content", [b"", b"no tensors here", None], ids=["empty", "no safetensors", "truncated"])
def test_a_broken_download_is_refused(content: bytes | None, hub: Path) -> None:
    file = publish(hub, VIT_TAG, classifier_state("vit_base_patch16_224", **TINY_VIT))
    file.write_bytes(file.read_bytes()[:-8] if content is None else content)
    with pytest.raises(WeightsError, match="cannot load the published weights") as caught:
        vit(f"timm:{VIT_TAG}")
    assert "\n" not in str(caught.value)


def test_published_weights_of_another_width_are_refused(hub: Path) -> None:
    publish(hub, VIT_TAG, classifier_state("vit_base_patch16_224", **TINY_VIT))
    with pytest.raises(WeightsError, match=r"cannot load the published weights .*state_dict"):
        vit(f"timm:{VIT_TAG}", embed_dim=24)


def test_a_deeper_model_is_never_half_random(hub: Path) -> None:
    publish(hub, VIT_TAG, classifier_state("vit_base_patch16_224", **TINY_VIT))
    with pytest.raises(WeightsError, match=r"cannot load the published weights .*blocks\.2\."):
        vit(f"timm:{VIT_TAG}", depth=3)


def test_hf_home_is_where_the_weights_are_looked_for(tmp_path: Path) -> None:
    """As a user without network has it: the environment says where, in a process of its own."""
    state = classifier_state("vit_base_patch16_224", **TINY_VIT)
    publish(tmp_path / "hub", VIT_TAG, state)
    code = (
        "from safetensors.torch import save_file\n"
        "from models.vitpose import VitBackbone\n"
        f"model = VitBackbone((64, 96), 'timm:{VIT_TAG}', **{TINY_VIT})\n"
        f"save_file(model.vit.state_dict(), {str(tmp_path / 'loaded.safetensors')!r})\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGINGFACE"))}
    environment |= {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=REPO, env=environment, check=True)
    loaded = load_file(tmp_path / "loaded.safetensors")
    assert torch.equal(loaded["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc1.weight"])
