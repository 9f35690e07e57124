"""From `params.yaml` to complete parameters: strict reading, merging and the errors that name the key.

Merge order: section <- `profiles.<profile>.<section>` <- `profiles.<profile>.recipes.<model>` (of `base` alone) <-
`experiments.<name>` <- `ablations.<name>`. A retest takes the training of its experiment, and
changes `test` or `evaluate`.
"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from bench.config import (
    MODEL_NAMES,
    PROFILE_SECTIONS,
    BaseParams,
    DataParams,
    DependencyParams,
    EvaluateParams,
    Params,
    ReportParams,
    StressParams,
    TestParams,
    TrainConfig,
    WarmstartParams,
)
from bench.errors import UserError
from bench.inference.scoring import SCORE_RULES
from bench.published import PUBLISHED
from bench.sweep.params import SweepParams

Tree = dict[str, Any]
Section = TypeVar("Section", bound=Params)
TOP_LEVEL_KEYS = (
    "profile", "seeds", *PROFILE_SECTIONS, "profiles", "experiments", "studies", "ablations", "retests", "warmstart",
    "sweep",
)  # fmt: skip
RETESTED = ("test", "evaluate")
MOST_VALUES = 100_000
"""In a file, with every alias written out: the shipped one has 2,000."""


class Layer(NamedTuple):
    """One place in the file that sets values, with its path for messages."""

    path: str
    values: Tree


class Ablation(NamedTuple):
    """A one-factor change: `factor` is the dotted key, its values are the run's and its parent's."""

    name: str
    parent: str
    factor: str
    value: Any
    parent_value: Any
    retest: bool  # takes its parent's training


class Retest(NamedTuple):
    """A trained experiment under other parameters of prediction or of metrics."""

    parent: str
    test: TestParams
    evaluate: EvaluateParams


class Grid(NamedTuple):
    """The selected profile, complete: every parameter of every declared run."""

    profile: str
    profiles: tuple[str, ...]
    seeds: tuple[int, ...]
    data: DataParams
    test: TestParams
    evaluate: EvaluateParams
    stress: StressParams
    dependency: DependencyParams
    report: ReportParams
    experiments: dict[str, TrainConfig]
    published: dict[str, str]  # experiment -> key of `bench.published`, whose numbers it should reach
    ablations: dict[str, TrainConfig]
    retests: dict[str, Retest]
    factors: tuple[Ablation, ...]  # of ablations, then of retests
    warmstart: WarmstartParams
    sweep: SweepParams


def load_grid(file: Path, profile: str | None = None) -> Grid:
    """Read, merge and check `params.yaml`: the grid of `profile`, or else of the one that the file selects.

    Every profile is checked, so a typo in a profile at rest is found too.

    Raises:
        UserError: one line with the file, the path of the key, what was found and what was wanted.
    """
    return grid_of(file, read_params(file), profile)


def grid_of(file: Path, raw: Tree, profile: str | None = None) -> Grid:
    """The same of what `read_params` has read."""
    try:
        selected = _choice("profile", raw["profile"] if profile is None else profile, raw["profiles"])
        grids = {name: _resolve_profile(raw, name, selected=name == selected) for name in raw["profiles"]}
        return grids[selected]
    except UserError as error:
        raise UserError(f"{file}: {error}") from error.__cause__


def read_params(file: Path) -> Tree:
    """The file as it is written, with its sections, profiles and names checked.

    Raises:
        UserError: as of `load_grid`.
    """
    try:
        raw = _read_yaml(file)
        _check_top_level(raw)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error.__cause__
    return raw


def _read_yaml(file: Path) -> Tree:
    try:
        raw = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror}), wanted a YAML file of parameters") from error
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text (byte {error.start}), wanted a YAML file of parameters") from error
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{where}not valid YAML: {str(error.problem).splitlines()[0]}") from error
    except (YAMLError, ValueError) as error:  # the second from what only looks like a number, as `+_`
        raise UserError(f"not valid YAML: {str(error).splitlines()[0]}") from error
    if _expanded_size(raw, {}) > MOST_VALUES:
        raise UserError(f"found more than {MOST_VALUES} values, or aliases that hold themselves, wanted fewer")
    _check_key_types("top level", raw)
    return _mapping("top level", raw)


def _check_key_types(path: str, node: Any) -> None:
    if isinstance(node, list):
        for item in node:
            _check_key_types(path, item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise UserError(f"{path}: found the key {key!r}, wanted text")
            _check_key_types(f"{path}.{key}", value)


def _expanded_size(node: Any, sizes: dict[int, float]) -> float:
    """How many values there are with every alias written out, of which a few lines can make billions."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = math.inf  # as long as it is not known: what it holds may be itself
        children = [*node.keys(), *node.values()] if isinstance(node, dict) else node
        sizes[id(node)] = 1 + sum(_expanded_size(child, sizes) for child in children)
    return sizes[id(node)]


def _check_top_level(raw: Tree) -> None:
    _check_keys("", raw, TOP_LEVEL_KEYS)
    for key in TOP_LEVEL_KEYS:
        if key not in raw:
            raise UserError(f"{key}: missing, wanted all of {', '.join(TOP_LEVEL_KEYS)}")
    seeds = raw["seeds"]
    if not (isinstance(seeds, list) and seeds and all(type(seed) is int and 0 <= seed < 2**32 for seed in seeds)):
        raise UserError(f"seeds: found {seeds!r}, wanted a list of at least one whole number from 0 up")
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: found {seeds!r}, wanted every seed once")
    if not _mapping("experiments", raw["experiments"]):
        raise UserError("experiments: found none, wanted at least one system")
    for key in ("experiments", "studies", "ablations", "profiles"):
        for name in _mapping(key, raw[key]):
            _check_name(key, name)
            _mapping(f"{key}.{name}", raw[key][name])
    names = [f"experiments.{name}" for name in raw["experiments"]] + [f"ablations.{name}" for name in raw["ablations"]]
    names += [f"retests.{name}" for name in _retest_names(raw["retests"])]
    taken: dict[str, str] = {}
    for path in names:
        name = path.partition(".")[2]
        if name in taken:
            raise UserError(f"{path}: the name is taken by {taken[name]}, wanted another one")
        taken[name] = path


def _check_name(key: str, name: Any) -> None:
    if not re.fullmatch(r"\w+", str(name), re.ASCII):
        raise UserError(f"{key}.{name}: found {name!r}, wanted a name of letters, digits and underscores")


def _retest_names(retests: Any) -> list[str]:
    """Of a list, as DVC lends stages of a list what its entries hold."""
    if not isinstance(retests, list):
        raise UserError(f"retests: found {retests!r}, wanted a list of entries with a name")
    for i, entry in enumerate(retests):
        if "name" not in _mapping(f"retests[{i}]", entry):
            raise UserError(f"retests[{i}].name: missing, wanted the name of its results")
        _check_name("retests", entry["name"])
        _check_keys(f"retests.{entry['name']}", entry, ("name", "of", *RETESTED))
    return [str(entry["name"]) for entry in retests]


class Merge(NamedTuple):
    """How one profile reads the file."""

    raw: Tree
    profile: str
    overrides: Tree
    recipes: Mapping[str, Tree]

    def layers(self, section: str) -> list[Layer]:
        """A section and what the profile changes in it."""
        path = f"profiles.{self.profile}.{section}"
        own = _mapping(path, self.overrides.get(section, {}))
        return [Layer(section, _mapping(section, self.raw[section])), Layer(path, own)]

    def build_base(self, *own: Layer) -> BaseParams:
        """`base` of one run, with the recipe of the model that its layers choose."""
        below = self.layers("base")
        model = next((layer.values["model"] for layer in reversed([*below, *own]) if "model" in layer.values), None)
        recipe = Layer(f"profiles.{self.profile}.recipes.{model}", self.recipes.get(str(model), {}))
        return _build(BaseParams, [*below, recipe, *own])


class Change(NamedTuple):
    """The entry of an ablation: its parent, and what it changes in it."""

    parent: str
    values: Tree


def _resolve_profile(raw: Tree, profile: str, *, selected: bool) -> Grid:
    overrides = raw["profiles"][profile]
    _check_keys(f"profiles.{profile}", overrides, (*PROFILE_SECTIONS, "recipes"))
    merge = Merge(raw, profile, overrides, _recipes(f"profiles.{profile}.recipes", overrides.get("recipes", {})))
    data = _build(DataParams, merge.layers("data"))
    evaluate = _build(EvaluateParams, merge.layers("evaluate"))
    dependency = _build(DependencyParams, merge.layers("dependency"))
    test = _build(TestParams, merge.layers("test"))
    _check_unused(merge)
    systems = {
        name: Layer(f"experiments.{name}", _without("published", own)) for name, own in raw["experiments"].items()
    }
    experiments = {name: merge.build_base(layer) for name, layer in systems.items()}
    changes = {
        name: Change(_parent(f"ablations.{name}", own, experiments), _without("of", own))
        for name, own in raw["ablations"].items()
    }
    ablations = {
        name: merge.build_base(systems[change.parent], Layer(f"ablations.{name}", change.values))
        for name, change in changes.items()
    }
    retests = {
        entry["name"]: _retest(merge, entry, _parent(f"retests.{entry['name']}", entry, experiments))
        for entry in raw["retests"]
    }
    if selected:
        _check_sizes("experiments", experiments)
        _check_sizes("ablations", ablations)
        _check_cell(dependency.cell, experiments)
        for name, layer in systems.items():
            _check_read(merge, layer, experiments[name])
    if merge.recipes:
        _check_models_kept(profile, changes)
    factors = tuple(
        _factor(name, change, ablations[name], experiments[change.parent], distinct=selected)
        for name, change in changes.items()
    )
    _check_policies(data, evaluate, profile, {**experiments, **ablations})
    for name, retest in retests.items():
        _check_policies(data, retest.evaluate, f"{profile}, retest {name}", {})
    if selected:
        _check_score_rule("evaluate", evaluate.score_rule, {**experiments, **ablations})
        for name, retest in retests.items():
            own = {retest.parent: experiments[retest.parent]}
            _check_score_rule(f"retests.{name}.evaluate", retest.evaluate.score_rule, own)
    factors += tuple(
        _retest_factor(entry, retests[entry["name"]], test, evaluate, selected) for entry in raw["retests"]
    )
    return Grid(
        profile=profile,
        profiles=tuple(raw["profiles"]),
        seeds=tuple(raw["seeds"]),
        data=data,
        test=test,
        evaluate=evaluate,
        stress=_build(StressParams, merge.layers("stress")),
        dependency=dependency,
        report=_build(ReportParams, merge.layers("report")),
        experiments={name: TrainConfig.from_base(base) for name, base in experiments.items()},
        published={
            name: _published(f"experiments.{name}.published", own["published"], experiments[name].model)
            for name, own in raw["experiments"].items()
            if "published" in own
        },
        ablations={name: TrainConfig.from_base(base) for name, base in ablations.items()},
        retests=retests,
        factors=factors,
        warmstart=_warmstart(raw, data),
        sweep=_build(SweepParams, [Layer("sweep", _mapping("sweep", raw["sweep"]))]),
    )


def _check_unused(merge: Merge) -> None:
    """A value that every experiment overrides must be right too, and so must one of a model that none takes."""
    merge.build_base()
    for model in merge.recipes:
        merge.build_base(Layer(f"profiles.{merge.profile}.recipes.{model}", {"model": model}))


def _check_sizes(section: str, runs: Mapping[str, BaseParams]) -> None:
    for name, run in runs.items():
        if misfit := run.misfit():
            raise UserError(f"{section}.{name}: {misfit}")


def _check_cell(cell: int, experiments: Mapping[str, BaseParams]) -> None:
    """Maps of dependency have whole cells."""
    for name, run in experiments.items():
        width, height = run.input_size
        if width % cell or height % cell:
            raise UserError(
                f"dependency.cell: found {cell}, wanted a divisor of the input of {name}, which is {width} x {height}"
            )


def _check_read(merge: Merge, layer: Layer, whole: BaseParams) -> None:
    """An experiment's own values, of which `whole` is made, must reach its run."""
    run = TrainConfig.from_base(whole)
    for key in _leaves(layer.values):
        try:
            rest = merge.build_base(Layer(layer.path, _drop(layer.values, key)))
        except UserError:
            continue  # others of its values need this one
        if TrainConfig.from_base(rest) == run and _get(rest, key) != _get(whole, key):
            raise UserError(f"{layer.path}.{key}: found {_get(whole, key)!r}, wanted none: the run does not read it")


def _check_models_kept(profile: str, changes: Mapping[str, Change]) -> None:
    for name, change in changes.items():
        if "model" in change.values:
            raise UserError(
                f"ablations.{name}.model: changes the recipe too in profile {profile}, wanted an experiment instead"
            )


def _recipes(path: str, recipes: Any) -> Mapping[str, Tree]:
    """By model, what the published training of it changes in `base`."""
    _check_keys(path, _mapping(path, recipes), MODEL_NAMES)
    for model, recipe in recipes.items():
        if "model" in _mapping(f"{path}.{model}", recipe):
            raise UserError(f"{path}.{model}.model: found {recipe['model']!r}, wanted none: a recipe is of its model")
    return dict(recipes)


def _published(path: str, key: Any, model: str) -> str:
    """A key of `bench.published`, of the same model as the experiment."""
    system = PUBLISHED[_choice(path, key, PUBLISHED)]
    if system.model != model:
        raise UserError(f"{path}: found {key!r}, which is a {system.model}, wanted a {model} as the experiment is")
    return str(key)


def _warmstart(raw: Tree, data: DataParams) -> WarmstartParams:
    params = _build(WarmstartParams, [Layer("warmstart", _mapping("warmstart", raw["warmstart"]))])
    _choice("warmstart.profile", params.profile, raw["profiles"])
    if data.source == "drawn" and params.seed == data.seed:
        raise UserError(f"warmstart.seed: found {params.seed}, wanted another than data.seed: the people must differ")
    return params


def _parent(path: str, entry: Tree, experiments: Mapping[str, BaseParams]) -> str:
    if "of" not in entry:
        raise UserError(f"{path}.of: missing, wanted the experiment that it changes")
    return _choice(f"{path}.of", entry["of"], experiments)


def _retest(merge: Merge, entry: Tree, parent: str) -> Retest:
    test, evaluate = (
        [*merge.layers(section), Layer(path, _mapping(path, entry.get(section, {})))]
        for section in RETESTED
        for path in [f"retests.{entry['name']}.{section}"]
    )
    return Retest(parent, _build(TestParams, test), _build(EvaluateParams, evaluate))


def _retest_factor(entry: Tree, retest: Retest, test: TestParams, evaluate: EvaluateParams, distinct: bool) -> Ablation:
    path, values = f"retests.{entry['name']}", {key: entry[key] for key in RETESTED if key in entry}
    factor = _only_leaf(path, values)
    section, _, key = factor.partition(".")
    own, before = {"test": (retest.test, test), "evaluate": (retest.evaluate, evaluate)}[section]
    if distinct and _get(own, key) == _get(before, key):
        raise UserError(f"{path}.{factor}: changes nothing, {_get(before, key)!r} is the value already, wanted another")
    return Ablation(entry["name"], retest.parent, factor, _get(own, key), _get(before, key), retest=True)


def _only_leaf(path: str, values: Tree) -> str:
    leaves = list(_leaves(values))
    if len(leaves) != 1:
        raise UserError(
            f"{path}: changes {len(leaves)} keys ({', '.join(leaves) or 'none'}), wanted exactly one: an ablation is a "
            "one-factor change"
        )
    return leaves[0]


def _factor(name: str, change: Change, own: BaseParams, parent_base: BaseParams, *, distinct: bool) -> Ablation:
    factor = _only_leaf(f"ablations.{name}", change.values)
    if distinct and TrainConfig.from_base(own) == TrainConfig.from_base(parent_base):
        raise UserError(
            f"ablations.{name}.{factor}: changes nothing in {change.parent}, which has this value already or does "
            "not read it, wanted a different run"
        )
    return Ablation(name, change.parent, factor, _get(own, factor), _get(parent_base, factor), retest=False)


def _check_policies(data: DataParams, evaluate: EvaluateParams, profile: str, runs: Mapping[str, BaseParams]) -> None:
    policies = {"evaluate": evaluate.presence_policy, **{name: run.presence_policy for name, run in runs.items()}}
    for where, policy in policies.items():
        if policy == "true" and data.source != "drawn":
            raise UserError(
                f"{where}: presence_policy 'true' in profile {profile} with data.source {data.source!r}, "
                "wanted 'labelled' or 'visible': only drawn people carry the truth"
            )


def _check_score_rule(path: str, rule: str, runs: Mapping[str, BaseParams]) -> None:
    """One protocol for all: a rule that reads presence needs a head in every run."""
    headless = [name for name, run in runs.items() if run.presence_head.type == "none"]
    if SCORE_RULES[rule].needs_presence and headless:
        others = ", ".join(name for name, other in SCORE_RULES.items() if not other.needs_presence)
        raise UserError(
            f"{path}.score_rule: found {rule!r}, wanted one of {others}: {headless[0]} has no presence head (AP "
            "under every rule is reported anyway)"
        )


def _build(section: type[Section], layers: list[Layer]) -> Section:
    merged = layers[0].values
    for layer in layers[1:]:
        merged = _merge(merged, layer.values, layer.path)
    try:
        return section.model_validate(merged)
    except ValidationError as error:
        raise UserError(_first_error(section, error, layers)) from error


def _merge(below: Tree, above: Tree, path: str) -> Tree:
    merged = dict(below)
    _check_keys(path, above, below)
    for key, value in above.items():
        if isinstance(below[key], dict):
            merged[key] = _merge(below[key], _mapping(f"{path}.{key}", value), f"{path}.{key}")
        else:
            merged[key] = value
    return merged


def _first_error(section: type[Params], error: ValidationError, layers: list[Layer]) -> str:
    """The first complaint of pydantic, at the place in the file that set the value."""
    first = error.errors()[0]
    keys = [
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "literal[", "float", "constr"))
    ]
    layer = next((layer for layer in reversed(layers) if _has(layer.values, keys)), layers[0])
    path = ".".join([layer.path, *keys])
    if first["type"] == "extra_forbidden":
        return _unknown_key(path, keys[-1], _fields(section, keys[:-1]))
    if first["type"] == "missing":
        return f"{path}: missing, wanted a value"
    if first["type"] == "value_error":
        source = next((x for x in reversed(layers) if x.values), layers[0]) if not keys else layer
        return f"{'.'.join([source.path, *keys])}: {first['ctx']['error']}"
    wanted = first["msg"].replace("Input should be", "").replace("Tuple should have", "").split(" after ")[0].strip()
    return f"{path}: found {first['input']!r}, wanted {wanted}"


def _fields(section: type[Params], keys: Iterable[str]) -> Iterable[str]:
    for key in keys:
        annotation = section.model_fields[key].annotation
        kinds = (annotation, *get_args(annotation))  # an optional section is one or None
        section = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Params))
    return section.model_fields


def _check_keys(path: str, values: Tree, known: Iterable[str]) -> None:
    for key in values:
        if key not in known:
            raise UserError(_unknown_key(f"{path}.{key}".lstrip("."), str(key), known))


def _unknown_key(path: str, key: str, known: Iterable[str]) -> str:
    return f"{path}: unknown key {key!r}, wanted one of {', '.join(known)}{_nearest(key, known)}"


def _choice(path: str, value: Any, known: Iterable[str]) -> str:
    if value not in list(known):
        raise UserError(f"{path}: found {value!r}, wanted one of {', '.join(known)}{_nearest(str(value), known)}")
    return str(value)


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; nearest: {close[0]}" if close else ""


def _mapping(path: str, value: Any) -> Tree:
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {value!r}, wanted a mapping of keys to values")
    return value


def _without(key: str, entry: Tree) -> Tree:
    return {k: v for k, v in entry.items() if k != key}


def _drop(tree: Tree, path: str) -> Tree:
    """The tree without one leaf."""
    key, _, rest = path.partition(".")
    return tree | {key: _drop(tree[key], rest)} if rest else _without(key, tree)


def _leaves(tree: Tree, path: str = "") -> Iterable[str]:
    for key, value in tree.items():
        where = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from _leaves(value, where)
        else:
            yield where


def _has(tree: Any, keys: list[str]) -> bool:
    for key in keys:
        if isinstance(tree, list):
            return True
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return bool(keys)


def _get(params: Params, path: str) -> Any:
    value: Any = params
    for key in path.split("."):
        value = getattr(value, key)
    return value
