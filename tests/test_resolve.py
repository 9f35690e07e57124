"""`params.yaml`: what is refused, and with which words; what an entry resolves to."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.errors import UserError
from bench.resolve import Grid, load_grid
from bench.stages import resolve

REPO = Path(__file__).parents[1]
Tree = dict[str, Any]


@pytest.fixture
def params() -> Tree:
    tree: Tree = YAML(typ="safe").load((REPO / "params.yaml").read_text())
    return tree


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Tree], Grid]:
    def load(tree: Tree) -> Grid:
        file = tmp_path / "params.yaml"
        YAML(typ="safe").dump(tree, file)
        return load_grid(file)

    return load


def put(path: str, value: Any) -> Callable[[Tree], None]:
    """An edit that sets a dotted path."""

    def edit(tree: Tree) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            tree = tree.setdefault(parent, {})
        tree[key] = value

    return edit


def drop(path: str) -> Callable[[Tree], None]:
    def edit(tree: Tree) -> None:
        *parents, key = path.split(".")
        for parent in parents:
            tree = tree[parent]
        del tree[key]

    return edit


def retest(**entry: Any) -> Callable[[Tree], None]:
    """An edit that makes this the only retest."""
    return put("retests", [entry])


BROKEN: list[tuple[Callable[[Tree], None], str]] = [
    (put("profile", "dmeo"), r"profile: found 'dmeo', wanted one of .*; nearest: demo"),
    (put("sedes", [1]), r"sedes: unknown key 'sedes', wanted one of .*; nearest: seeds"),
    (drop("evaluate"), "evaluate: missing, wanted all of"),
    (put("seeds", []), r"seeds: found \[\], wanted a list of at least one whole number"),
    (put("seeds", [0, 0]), r"seeds: found \[0, 0\], wanted every seed once"),
    (put("seeds", ["0"]), r"seeds: found \['0'\], wanted a list"),
    (put("seeds", 3), "seeds: found 3, wanted a list"),
    (put("experiments", {}), "experiments: found none, wanted at least one system"),
    (put("experiments", [1]), r"experiments: found \[1\], wanted a mapping"),
    (put("experiments.vit-pose", {}), "experiments.vit-pose: found 'vit-pose', wanted a name of letters"),
    (
        lambda tree: tree["experiments"].update({"w0.5": {}}),
        r"experiments.w0.5: found .w0.5., wanted a name of letters",
    ),
    (put("base.optim.lr", "5e-4"), "base.optim.lr: found '5e-4', wanted a valid number"),
    (put("base.optim.lr", 0), "base.optim.lr: found 0, wanted greater than 0"),
    (put("base.optim.lr", float("nan")), "base.optim.lr: found nan, wanted"),
    (put("base.optim.lrr", 1.0), "base.optim.lrr: unknown key 'lrr', wanted one of .*; nearest: lr"),
    (put("base.train.epochs", 2.5), "base.train.epochs: found 2.5, wanted a valid integer"),
    (put("base.train.epochs", True), "base.train.epochs: found True, wanted a valid integer"),
    (drop("base.sigma"), "sigma: missing, wanted a value|sigma: unknown key"),
    (put("base.loss.presence_weight", -1), "base.loss.presence_weight: found -1, wanted greater than or equal to 0"),
    (put("base.presence_head.dropout", 1.0), "base.presence_head.dropout: found 1.0, wanted less than 1"),
    (put("base.presence_head.type", "mpl"), "base.presence_head.type: found 'mpl', wanted 'none'"),
    (put("base.input_size", [192]), r"base.input_size.*: missing|base.input_size: found \[192\]"),
    (put("base.input_size", [190, 256]), r"input_size \[190, 256\] is not a multiple of 16, as vitpose needs"),
    (put("base.presence_head.pool", 5), "presence_head.pool 5 does not divide the .* heatmaps of vitpose"),
    (put("base.architectures.vitpose.num_heads", 7), "embed_dim .* is not a multiple of num_heads 7"),
    (
        put("base.architectures.vitpose.init", "imagenet"),
        "base.architectures.vitpose.init: found 'imagenet', wanted random, warmstart, timm:<tag> or",
    ),
    (put("base.model", "vitpos"), "base.model: found 'vitpos', wanted 'vitpose', 'hrnet' or 'transpose'"),
    (put("data.num_persons.train", "most"), "data.num_persons.train: found 'most', wanted"),
    (put("data.num_persons.val", 0), "data.num_persons.val: found 0, wanted"),
    (put("data.source", "coco2"), "data.source: found 'coco2', wanted 'drawn' or 'coco'"),
    (put("profiles.demo.data.num_persons.val", "all"), "num_persons: found 'all', wanted numbers"),
    (put("profiles.paper.bsae", {}), "profiles.paper.bsae: unknown key 'bsae', .*; nearest: base"),
    (put("profiles.full.base.sigm", 2.0), "profiles.full.base.sigm: unknown key 'sigm', .*; nearest: sigma"),
    (put("profiles.full.base.sigma", "2"), "profiles.full.base.sigma: found '2', wanted a valid number"),
    (put("profiles.paper.evaluate.presence_policy", "true"), "presence_policy 'true' in profile paper"),
    (put("experiments.hrnet.loss", {"presense_weight": 1}), "experiments.hrnet.loss.presense_weight: unknown key"),
    (put("sweep.cpus", 0), "sweep.cpus: found 0, wanted greater than 0"),
    (put("sweep.gpus", 1.5), "sweep: gpus: found 1.5, wanted a part of one GPU, or whole ones"),
    (put("sweep.gpu", 1), "sweep.gpu: unknown key 'gpu', wanted one of cpus, gpus, memory_gb; nearest: gpus"),
    (put("experiments.hrnet.loss", 3), "experiments.hrnet.loss: found 3, wanted a mapping"),
    (put("experiments.hrnet.model", "hrnett"), "experiments.hrnet.model: found 'hrnett', wanted"),
    (put("ablations.x", {"loss": {"presence_weight": 1.0}}), "ablations.x.of: missing, wanted the experiment"),
    (put("ablations.x", {"of": "vitpoze"}), "ablations.x.of: found 'vitpoze', wanted one of .*; nearest: vitpose"),
    (put("ablations.x", {"of": "vitpose"}), r"ablations.x: changes 0 keys \(none\), wanted exactly one"),
    (
        put("ablations.x", {"of": "vitpose", "sigma": 3.0, "bbox_padding": 1.0}),
        r"ablations.x: changes 2 keys \(.*sigma.*\), wanted exactly one",
    ),
    (
        put("ablations.x", {"of": "vitpose", "loss": {"presence_weight": 0.5}}),
        "ablations.x.loss.presence_weight: changes nothing in vitpose, which has this value already or does not read",
    ),
    (
        put("ablations.hrnet", {"of": "vitpose", "sigma": 3.0}),
        "ablations.hrnet: the name is taken by experiments.hrnet",
    ),
    (put("retests", {}), "retests: found {}, wanted a list of entries with a name"),
    (retest(of="vitpose"), r"retests\[0\].name: missing, wanted the name of its results"),
    (retest(name="x"), "retests.x.of: missing, wanted the experiment"),
    (retest(name="hrnet", of="hrnet"), "retests.hrnet: the name is taken by experiments.hrnet, wanted another one"),
    (retest(name="x", of="hrnet"), r"retests.x: changes 0 keys \(none\), wanted exactly one"),
    (
        retest(name="x", of="hrnet", sigma=3.0),
        "retests.x.sigma: unknown key 'sigma', wanted one of name, of, test, eval",
    ),
    (
        retest(name="x", of="hrnet", test={"flip_tset": True}),
        "retests.x.test.flip_tset: unknown key .*; nearest: flip_t",
    ),
    (
        retest(name="x", of="hrnet", test={"flip_test": True}),
        "retests.x.test.flip_test: changes nothing, True is the value already",
    ),
    (
        retest(name="x", of="hrnet", evaluate={"score_rule": "box_presence"}),
        "retests.x.evaluate.score_rule: found 'box_presence', .*: hrnet has no presence head",
    ),
    (put("ablations.x", {"of": "vitpose", "sigma": "wide"}), "ablations.x.sigma: found 'wide', wanted a valid number"),
    (put("evaluate.threshold", 1.5), "evaluate.threshold: found 1.5, wanted"),
    (
        put("evaluate.score_rule", "keypoint"),
        "evaluate.score_rule: found 'keypoint', wanted 'box', 'box_keypoint', 'box_pre",
    ),
    (
        put("evaluate.score_rule", "box_presence"),
        r"evaluate.score_rule: found 'box_presence', wanted one of box, box_keypoint: hrnet has no presence head",
    ),
    (
        put("profiles.demo.evaluate", {"score_rule": "presence_weighted"}),
        "evaluate.score_rule: found 'presence_weighted', wanted one of box, box_keypoint: hrnet has no presence head",
    ),
    (put("evaluate.oks_nms", 0), "evaluate.oks_nms: found 0, wanted greater than 0"),
    (put("evaluate.oks_nms", 1.5), "evaluate.oks_nms: found 1.5, wanted less than or equal to 1"),
    (put("evaluate.oks_nms", "none"), "evaluate.oks_nms: found 'none', wanted a valid number"),
    (put("evaluate.interval", "BCa"), "evaluate.interval: found 'BCa', wanted 'percentile' or 'bca'"),
    (put("evaluate.num_resamples", 19), "evaluate.num_resamples: found 19, wanted greater than or equal to 20"),
    (put("stress.num_persons", 0), "stress.num_persons: found 0, wanted greater than or equal to 1"),
    (put("stress.kept", []), r"stress.kept: found \[\], wanted at least 1 item"),
    (put("profiles.demo.stress.kept", [1.0, 0]), "profiles.demo.stress.kept.1: found 0, wanted greater than 0"),
    (put("profiles.demo.stress.kept", [0.5, 0.5]), r"stress.kept: found \[0.5, 0.5\], wanted each once"),
    (put("stress.sides", ["up"]), "stress.sides.0: found 'up', wanted 'left', 'right', 'top' or 'bottom'"),
    (put("stress.paddings", "black"), "stress.paddings: found 'black', wanted"),
    (
        put("dependency.shares", [0.5, 0.2]),
        r"dependency.shares: found \[0.5, 0.2\], wanted .* the smallest first",
    ),
    (put("dependency.shares", [1.0]), "dependency.shares.0: found 1.0, wanted less than 1"),
    (put("profiles.demo.dependency.cell", 7), "dependency.cell: found 7, wanted a divisor of the input of .* 64 x 96"),
    (put("stress.padding", "zeros"), "stress.padding: unknown key 'padding', wanted one of .*; nearest: paddings"),
    (put("data.min_detection_score", 1.5), "data.min_detection_score: found 1.5, wanted less than or equal to 1"),
    (put("data.detections", ""), "data.detections: found '', wanted"),
    (
        lambda tree: tree["data"].update(detections="boxes.json", min_detection_score=None),
        "data: min_detection_score: found null, wanted a number from 0 to 1 as detections are given",
    ),
    (
        put("profiles.full.data", {"detections": "boxes.json", "min_detection_score": None}),
        "profiles.full.data: min_detection_score: found null, wanted a number from 0 to 1 as detections are given",
    ),
    (put("test.flip_test", "yes"), "test.flip_test: found 'yes', wanted a valid boolean"),
    (put("base.optim.trainable_layers", "some"), "base.optim.trainable_layers: found 'some', wanted"),
    (put("base.optim.trainable_layers", -1), "base.optim.trainable_layers: found -1, wanted"),
    (put("base.optim.clip_norm", 0), "base.optim.clip_norm: found 0, wanted greater than 0"),
    (
        put("base.weights", "vitpose-b.pth"),
        "base.weights: found 'vitpose-b.pth', wanted null or models/published",
    ),
    (
        put("experiments.vitpose_presence.presence_head", {"type": "conv", "dropout_at": "pooled"}),
        "presence.presence_head: dropout_at: found 'pooled', wanted features or hidden in a conv head",
    ),
    (
        put("experiments.vitpose_presence.presence_head", {"type": "mlp", "pool": None}),
        "experiments.vitpose_presence: presence_head: found pool None, pool_type max and hidden 64, wanted values",
    ),
    (
        put("experiments.transpose.architectures", {"transpose": {"backbone": "hrnet_w32"}}),
        r"architectures.transpose: decoder_channels: found 64, wanted null: TransPose-H has no deconvolution",
    ),
    (
        put("base.optim.trainable_layers", 99),
        r"experiments.\w+: optim.trainable_layers: found 99, wanted all or 0 to \d of \w+",
    ),
    (
        put("base.architectures.vitpose.patch_padding", 8),
        "vitpose: patch_padding: found 8, wanted less than half of patch_size 8",
    ),
    (put("base.architectures.hrnet.backbone", "resnet50"), "hrnet.backbone: found 'resnet50', wanted an HRNet of timm"),
    (
        put("experiments.vitpose_presence", {"presence_head": {"type": "three_class"}, "presence_policy": "visible"}),
        "presence_policy: found 'visible', wanted 'labelled' with a three_class head",
    ),
    (put("base.train.accumulate", 99), "found 99 parts .accumulate x devices x num_nodes. of a batch of"),
    (put("base.train.strategy", "fsdp"), "found strategy 'fsdp' on one device, wanted several that share the weights"),
    (
        put("experiments.hrnet", {"train": {"devices": 2, "strategy": "fsdp"}, "loss": {"weighting": "uncertainty"}}),
        "loss.weighting: found 'uncertainty', wanted 'fixed' with train.strategy 'fsdp'",
    ),
    (
        put("experiments.hrnet.sigma", 2.0),
        "hrnet: sigma 2 is 0.5 pixels of the 16 x 24 heatmaps of hrnet, wanted at least",
    ),
    (put("profiles.full.recipes.hrnet.model", "vitpose"), "hrnet.model: found 'vitpose', wanted none: a recipe is of"),
    (
        put("experiments.hrnet.published", "vitpose_b_classic"),
        "experiments.hrnet.published: found 'vitpose_b_classic', which is a vitpose, wanted a hrnet",
    ),
    (
        put("experiments.hrnet.architectures", {"vitpose": {"depth": 99}}),
        "experiments.hrnet.architectures.vitpose.depth: found 99, wanted none: the run does not read it",
    ),
    (
        put("experiments.vitpose_presence.presence_head", {"type": "linear", "pool": 8}),
        "experiments.vitpose_presence.presence_head.pool: found 8, wanted none: the run does not read it",
    ),
    (put("profiles.full.recipes.vitpoze", {}), "profiles.full.recipes.vitpoze: unknown key .*; nearest: vitpose"),
    (put("profiles.full.recipes.hrnet", 3), "profiles.full.recipes.hrnet: found 3, wanted a mapping"),
    (
        put("profiles.full.recipes.hrnet", {"optim": {"lr": "fast"}}),
        "profiles.full.recipes.hrnet.optim.lr: found 'fast', wanted a valid number",
    ),
    (
        put("experiments.hrnet.published", "hrnet_w23"),
        "experiments.hrnet.published: found 'hrnet_w23', wanted one of .*; nearest: hrnet_w32",
    ),
    (put("warmstart.profile", "tiny"), "warmstart.profile: found 'tiny', wanted one of"),
    (put("warmstart.seed", 0), "warmstart.seed: found 0, wanted another than data.seed"),
]


@pytest.mark.parametrize(("edit", "message"), BROKEN)
def test_broken_parameters(
    params: Tree, tmp_path: Path, refused: Callable[..., str], edit: Callable[[Tree], None], message: str
) -> None:
    edit(params)
    YAML(typ="safe").dump(params, tmp_path / "params.yaml")
    error = refused(resolve.main)
    assert re.search(message, error)
    assert error.startswith("error: params.yaml: ")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", "line 1, column .*: not valid YAML"),
        ("profile: demo\nprofile: paper\n", "not valid YAML: found duplicate key"),
        ("- 1\n", r"top level: found \[1\], wanted a mapping"),
        ("", "top level: found None, wanted a mapping"),
        ("a: !!python/object:os.system x", "not valid YAML"),
        ("\x00", "not valid YAML"),
    ],
)
def test_files_that_are_no_parameters(tmp_path: Path, refused: Callable[..., str], text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    assert re.search(message, refused(resolve.main))


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing.yaml: cannot be read \(No such file or directory\)"):
        load_grid(tmp_path / "nothing.yaml")


def test_layers_override_each_other(params: Tree, load: Callable[[Tree], Grid]) -> None:
    params["base"]["sigma"] = 1.0
    params["profiles"]["demo"]["base"]["sigma"] = 5.0
    params["experiments"]["hrnet"]["sigma"] = 6.0
    params["ablations"] = {"wide": {"of": "hrnet", "sigma": 7.0}}
    grid = load(params)
    assert grid.experiments["vitpose"].sigma == 5.0
    assert grid.experiments["hrnet"].sigma == 6.0
    assert grid.ablations["wide"].sigma == 7.0
    assert grid.factors[0] == ("wide", "hrnet", "sigma", 7.0, 6.0, False)


def test_a_recipe_is_of_its_model_alone(params: Tree, load: Callable[[Tree], Grid]) -> None:
    """Above its profile, below the experiment that takes it."""
    params["profiles"]["demo"]["recipes"] = {"hrnet": {"codec": "msra", "optim": {"lr": 0.125}}}
    params["experiments"]["hrnet"]["optim"] = {"weight_decay": 0.5}
    params["experiments"]["hrnet_wild"] = {"model": "hrnet", "codec": "dark"}
    before, grid = load(params | {"profiles": params["profiles"] | {"demo": {}}}), load(params)
    assert (grid.experiments["hrnet"].codec, grid.experiments["vitpose"].codec) == ("msra", "udp")
    fitting = grid.experiments["hrnet"].fitting
    assert fitting is not None
    assert (fitting.optim.lr, fitting.optim.weight_decay) == (0.125, 0.5)
    assert grid.experiments["hrnet_wild"].codec == "dark"
    assert before.experiments["hrnet"].codec == "udp"


def test_the_published_recipes(params: Tree, load: Callable[[Tree], Grid]) -> None:
    """Sources: ViTPose's, HRNet's and TransPose's configurations."""
    grid = load(params | {"profile": "full"})
    found = {}
    for name in ("vitpose", "hrnet", "transpose"):
        config = grid.experiments[name]
        fit = config.fitting
        assert fit is not None
        assert (config.input_size, config.sigma, config.bbox_padding) == ((192, 256), 8.0, 1.25)
        assert (fit.augment.flip, fit.augment.half_body, fit.augment.rotation_probability) == (0.5, 0.3, 0.6)
        assert (fit.loss.heatmap_mean, fit.loss.absent_heatmaps) == ("all", "mask")
        optim = fit.optim
        found[name] = (
            config.codec, optim.lr, optim.weight_decay, optim.layer_decay, optim.schedule, optim.clip_norm,
            fit.epochs, fit.batch_size, fit.augment.scale, fit.augment.rotation, fit.augment.shift,
            fit.loss.heatmap_weight,
        )  # fmt: skip
    assert found == {
        "vitpose": ("udp", 5e-4, 0.1, 0.75, "step", 1.0, 210, 512, 0.5, 40, 0.16, 1.0),
        "hrnet": ("msra", 1e-3, 0.0, 1.0, "step", None, 210, 128, 0.35, 45, 0.0, 0.5),
        "transpose": ("dark", 1e-4, 0.0, 1.0, "cosine", None, 230, 20, 0.35, 45, 0.0, 0.5),
    }


def test_published_weights_leave_nothing_to_train(params: Tree, load: Callable[[Tree], Grid]) -> None:
    params["experiments"]["ready"] = {"weights": "models/published/x.pth", "published": "vitpose_b_classic"}
    before = load(params)
    assert before.published == {"ready": "vitpose_b_classic"}
    assert before.experiments["ready"].fitting is None
    params["base"]["optim"]["lr"], params["base"]["loss"]["heatmap_weight"] = 0.25, 7.0
    assert load(params).experiments["ready"] == before.experiments["ready"]


def test_a_head_on_features_does_not_read_the_sizes_of_one_on_heatmaps(
    params: Tree, load: Callable[[Tree], Grid]
) -> None:
    params["experiments"]["vitpose_presence"]["presence_head"] = {"type": "linear"}
    before = load(params)
    params["base"]["presence_head"]["pool"] = 8
    assert load(params).experiments == before.experiments


def test_a_run_without_head_does_not_read_its_parameters(params: Tree, load: Callable[[Tree], Grid]) -> None:
    before = load(params)
    params["base"]["presence_head"]["hidden"] = 99
    after = load(params)
    assert after.experiments["vitpose"] == before.experiments["vitpose"]
    assert after.experiments["vitpose_presence"] != before.experiments["vitpose_presence"]


def test_sizes_of_other_architectures_are_not_read(params: Tree, load: Callable[[Tree], Grid]) -> None:
    before = load(params)
    params["profiles"]["demo"]["base"]["architectures"]["transpose"]["depth"] = 3
    after = load(params)
    changed = [name for name in after.experiments if after.experiments[name] != before.experiments[name]]
    assert changed == ["transpose"]


def with_heads(params: Tree, rule: str) -> Tree:
    """Every run has a head, so that a rule may read presence."""
    heads = {name: entry | {"presence_head": {"type": "mlp"}} for name, entry in params["experiments"].items()}
    return params | {"experiments": heads, "evaluate": params["evaluate"] | {"score_rule": rule}, "retests": []}


@pytest.mark.parametrize("rule", ["box_presence", "presence_weighted"])
def test_a_rule_may_read_presence_where_every_run_says_it(
    rule: str, params: Tree, load: Callable[[Tree], Grid]
) -> None:
    """One protocol for all, so one run without a head, if only an ablation, is one too many."""
    headed = with_heads(params, rule)
    assert load(headed).evaluate.score_rule == rule
    headless = {"of": "hrnet", "presence_head": {"type": "none"}}
    headed["ablations"] = headed["ablations"] | {"headless": headless}
    message = rf"evaluate\.score_rule: found '{rule}', wanted one of box, box_keypoint: headless has no presence head"
    with pytest.raises(UserError, match=message):
        load(headed)


@pytest.mark.parametrize("rule", ["box", "box_keypoint"])
def test_other_rules_need_no_head(rule: str, params: Tree, load: Callable[[Tree], Grid]) -> None:
    params["evaluate"]["score_rule"] = rule
    assert load(params).evaluate.score_rule == rule


def test_a_rule_of_a_profile_at_rest_is_checked_when_it_is_chosen(params: Tree, load: Callable[[Tree], Grid]) -> None:
    """Its runs may have got heads by then."""
    params["profiles"]["full"]["evaluate"] = {"score_rule": "box_presence"}
    assert load(params).evaluate.score_rule == "box_keypoint"
    with pytest.raises(UserError, match=r"evaluate\.score_rule: found 'box_presence'"):
        load(params | {"profile": "full"})


def plan_of_data(grid: Grid) -> Tree:
    plan: Tree = grid.data.only_read().model_dump()
    return {key: plan[key] for key in ("root", "detections", "min_detection_score", "drawn")}


def test_a_source_reads_its_own_part_alone(params: Tree, load: Callable[[Tree], Grid]) -> None:
    """Detected boxes are of photographs, and a least score is of detected boxes."""
    params["data"] |= {"detections": "boxes.json", "min_detection_score": 0.25}
    drawn, coco = load(params | {"profile": "demo"}), load(params | {"profile": "full"})
    assert plan_of_data(drawn) | {"drawn": None} == {
        "root": None, "detections": None, "min_detection_score": None, "drawn": None,
    }  # fmt: skip
    assert plan_of_data(drawn)["drawn"] is not None
    wanted = {"root": params["data"]["root"], "detections": "boxes.json", "min_detection_score": 0.25, "drawn": None}
    assert plan_of_data(coco) == wanted
    params["data"]["detections"] = None
    assert plan_of_data(load(params | {"profile": "full"})) == wanted | {
        "detections": None,
        "min_detection_score": None,
    }


def test_systems_are_stressed_and_ablations_are_not(
    params: Tree, load: Callable[[Tree], Grid], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params["profiles"]["demo"]["stress"] = {"num_persons": 3, "kept": [1, 0.5]}
    params["experiments"] = {"hrnet": {"model": "hrnet", "architectures": {"hrnet": {"init": "random"}}}}
    params |= {"ablations": {"wide": {"of": "hrnet", "sigma": 7.0}}, "retests": []}
    grid = load(params)
    assert (grid.stress.num_persons, grid.stress.kept, grid.stress.seed) == (3, (1.0, 0.5), params["stress"]["seed"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(resolve, "STAGE_MODULES", {})
    resolve.write_plan(grid)
    for stage in ("stress", "dependency"):
        assert Path(f"runs/demo/plan/hrnet/{stage}.json").is_file()
        assert not Path(f"runs/demo/plan/wide/{stage}.json").exists()
    assert (Path("runs/demo/plan/wide/evaluate.json")).is_file()


def test_no_ablations_is_fine(params: Tree, load: Callable[[Tree], Grid]) -> None:
    params |= {"ablations": {}, "retests": []}
    assert load(params).factors == ()


UNREAD = [  # an entry, and the key of it that its run does not read
    ({"presence_policy": "visible"}, "presence_policy"),
    ({"augment": {"shift_probability": 0.9}}, "augment.shift_probability"),
    ({"augment": {"rotation": 0, "rotation_probability": 0.1}}, "augment.rotation_probability"),
    ({"optim": {"schedule": "step", "final_lr_factor": 0.5}}, "optim.final_lr_factor"),
    ({"optim": {"trainable_layers": 0, "layer_decay": 0.5}}, "optim.layer_decay"),
    (
        {"architectures": {"vitpose": {"decoder": "simple", "decoder_channels": 9}}},
        "architectures.vitpose.decoder_channels",
    ),
    ({"presence_head": {"type": "mlp", "dropout": 0.0, "dropout_at": "pooled"}}, "presence_head.dropout_at"),
    ({"weights": "models/published/x.pth", "train": {"epochs": 99}}, "train.epochs"),
]


@pytest.mark.parametrize(("entry", "key"), UNREAD)
def test_what_a_run_does_not_read_is_refused(entry: Tree, key: str, params: Tree, load: Callable[[Tree], Grid]) -> None:
    params["experiments"]["mine"] = {"model": "vitpose"} | entry
    with pytest.raises(UserError, match=rf"experiments\.mine\.{re.escape(key)}: found .*: the run does not read it"):
        load(params)


def test_an_entry_that_fits_the_sizes_of_another_profile_is_no_error(
    params: Tree, load: Callable[[Tree], Grid]
) -> None:
    """Sigma 2 is half a pixel of a heatmap at stride 4, and enough where heatmaps are as large as the input."""
    params["ablations"] = {
        "sharp": {"of": "vitpose", "sigma": 2.0},
        "last_8": {"of": "vitpose", "optim": {"trainable_layers": 8}},
    }
    assert load(params | {"profile": "paper"}).ablations["sharp"].sigma == 2.0
    with pytest.raises(
        UserError, match=r"ablations\.(sharp: sigma 2 is 0\.5 pixels|last_8: optim\.trainable_layers: found 8)"
    ):
        load(params)


@pytest.mark.parametrize("profile", ["demo", "paper", "full"])
def test_every_study_resolves_in_its_profile(profile: str, params: Tree, load: Callable[[Tree], Grid]) -> None:
    grid = load(params | {"profile": profile, "ablations": params["studies"][profile]})
    assert set(grid.ablations) == set(params["studies"][profile])
    assert len(grid.ablations) >= (4 if profile == "demo" else 40)


def test_a_retest_is_its_experiment_but_for_one_value(params: Tree, load: Callable[[Tree], Grid]) -> None:
    entries = [
        {"name": "plain", "of": "hrnet", "test": {"flip_test": False}},
        {"name": "half", "of": "vitpose", "evaluate": {"threshold": 0.5}},
    ]
    grid = load(params | {"retests": entries})
    plain, half = (grid.retests[name] for name in ("plain", "half"))
    assert plain.parent == "hrnet"
    assert plain.test == grid.test.model_copy(update={"flip_test": False})
    assert plain.evaluate == grid.evaluate
    assert half.test == grid.test
    assert half.evaluate == grid.evaluate.model_copy(update={"threshold": 0.5})
    assert [tuple(factor) for factor in grid.factors[-2:]] == [
        ("plain", "hrnet", "test.flip_test", False, True, True),
        ("half", "vitpose", "evaluate.threshold", 0.5, "max_f1", True),
    ]
