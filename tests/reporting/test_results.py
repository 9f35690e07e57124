"""From rows to results: seeds pooled by hand, paired comparisons, and what is refused."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.people import Detections, People, extent_area
from bench.errors import UserError
from bench.metrics.average_precision import STATS, OKSEvaluation
from bench.metrics.bootstrap import draw_resampling, p_values, percentile_interval
from bench.metrics.oks import Matches, match
from bench.reporting.results import (
    Comparison,
    Contrast,
    Result,
    Side,
    Summary,
    Trade,
    compare_by_question,
    load_results,
    paired_difference,
    permuted_differences,
    read_matches,
    write_matches,
    write_replicates,
)
from bench.reporting.rows import (
    ALWAYS_PRESENT,
    HEATMAP_PEAK,
    PRESENCE_HEAD,
    Estimate,
    annotated_boxes,
    oks,
    presence,
    run_file,
    score_rule,
    write_row,
)
from tests.reporting.fake_runs import make_result, make_row

Floats = NDArray[np.float64]
AP, AUROC, F1 = oks("AP"), presence(HEATMAP_PEAK, "AUROC"), presence(HEATMAP_PEAK, "F1")
NUM_RESAMPLES = 99
SPREAD = np.linspace(-0.05, 0.05, NUM_RESAMPLES)  # a luck of the images with a known interval


def draws(value: float, *luck: Floats | float) -> Floats:
    """A number in every data set (S,): the value, and with some luck in each resample."""
    return value + np.concatenate([[0.0], sum(luck, np.zeros(NUM_RESAMPLES))])


def result_of(name: str, *seeds: Floats, key: str = F1, best_epoch: int = 3) -> Result:
    """A result one of whose numbers is given, (S,) for each training seed."""
    columns, num_resamples = {key: np.stack(seeds)}, len(seeds[0]) - 1
    return make_result(name, range(len(seeds)), columns=columns, num_resamples=num_resamples, best_epoch=best_epoch)


def side(result: Result, key: str) -> Side:
    return Side(result.name, result, key)


def contrast(first: Result, second: Result, key: str = F1) -> Contrast:
    return Contrast(key, side(first, key), side(second, key), "question")


# One number of one result.


def test_one_seed_keeps_value_and_interval_of_its_row_and_has_no_spread() -> None:
    result = make_result("a", head=True)
    for key, estimate in result.row.numbers.items():
        assert result.number(key) == (estimate.value, estimate.low, estimate.high, None, 1)


def test_one_seed_keeps_an_interval_of_another_method() -> None:
    """BCa bounds cannot be had from the replicates again."""
    result = make_result("a")
    corrected = {**result.row.numbers, AP: Estimate(value=0.5, low=0.31, high=0.55)}
    changed = result._replace(rows=[result.row.model_copy(update={"numbers": corrected})])
    assert changed.number(AP) == (0.5, 0.31, 0.55, None, 1)


def test_seeds_give_mean_and_sample_deviation() -> None:
    summary = result_of("a", draws(0.5, SPREAD), draws(0.6, SPREAD), draws(0.7, SPREAD)).number(F1)
    assert summary.value == pytest.approx(0.6)
    assert summary.sd == pytest.approx(0.1)  # sqrt((0.01 + 0 + 0.01) / 2)
    assert summary.num_seeds == 3


def test_equal_seeds_leave_the_interval_of_the_images() -> None:
    """Whichever seeds are drawn, their mean is the number of one."""
    summary = result_of("a", *[draws(0.5, SPREAD)] * 3).number(F1)
    one = result_of("a", draws(0.5, SPREAD)).number(F1)
    assert summary[:3] == pytest.approx(one[:3])
    assert (summary.low, summary.high) == pytest.approx(tuple(0.5 + np.quantile(SPREAD, [0.025, 0.975])))
    assert summary.sd == pytest.approx(0.0)


def test_equal_images_leave_the_spread_of_the_seeds() -> None:
    """Two seeds at 0.4 and 0.6: a draw of two gives 0.4, 0.5 or 0.6 with chances 1/4, 1/2, 1/4."""
    summary = result_of("a", draws(0.4), draws(0.6)).number(F1)
    assert summary[:3] == pytest.approx((0.5, 0.4, 0.6))
    assert summary.sd == pytest.approx(0.2 / math.sqrt(2))


def test_seeds_widen_the_interval_of_the_images() -> None:
    rng = np.random.default_rng(0)
    luck = rng.normal(scale=0.01, size=2000)
    columns = [value + np.concatenate([[0.0], luck]) for value in (0.48, 0.50, 0.52)]
    summary = result_of("a", *columns).number(F1)
    of_images = 2 * 1.96 * 0.01
    of_both = 2 * 1.96 * math.hypot(0.01, np.std([0.48, 0.50, 0.52]) / math.sqrt(3))
    assert summary.high is not None and summary.low is not None
    assert of_images < summary.high - summary.low == pytest.approx(of_both, rel=0.08)


def test_results_with_the_same_spread_of_seeds_have_the_same_interval() -> None:
    """Every result draws seeds alike, or differences would not be paired."""
    a, b = (
        result_of(name, draws(x, SPREAD), draws(x + 0.1, SPREAD)).number(F1) for name, x in (("a", 0.4), ("b", 0.5))
    )
    assert np.array(b[1:3]) - np.array(a[1:3]) == pytest.approx([0.1, 0.1])


def test_one_undefined_seed_makes_the_number_undefined() -> None:
    result = result_of("a", draws(0.5, SPREAD), draws(math.nan))
    assert result.number(F1) == (None, None, None, None, 2)
    assert result.number(AP).value is not None


def test_resamples_that_hardly_define_a_number_leave_it_without_bounds() -> None:
    holes = np.where(np.arange(NUM_RESAMPLES) < 20, math.nan, 0.0)
    summary = result_of("a", draws(0.5, holes), draws(0.7, holes)).number(F1)
    assert summary == (pytest.approx(0.6), None, None, pytest.approx(0.1 * math.sqrt(2)), 2)


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_what_a_result_does_not_have_is_undefined(seeds: tuple[int, ...]) -> None:
    result = make_result("vitpose", seeds)
    for key in (presence(PRESENCE_HEAD, "F1"), annotated_boxes("AP"), score_rule("box_presence", "AP")):
        assert result.number(key) == (None, None, None, None, len(seeds))
    assert result.number(F1).value == pytest.approx(0.86)


# On disk.


def save_result(runs_dir: Path, result: Result, *, seeds: Sequence[int] | None = None) -> None:
    """Rows and replicates; `seeds` picks some of them."""
    for row, table in zip(result.rows, result.replicates, strict=True):
        if seeds is None or row.seed in seeds:
            write_row(row, run_file(runs_dir, "rows", row.experiment, row.seed))
            write_replicates(run_file(runs_dir, "replicates", row.experiment, row.seed), result.keys, table)


def test_results_come_back_in_the_declared_order(tmp_path: Path) -> None:
    saved = [make_result("b", (0, 1)), make_result("a", (0, 1), head=True)]
    for result in saved:
        save_result(tmp_path / "demo", result)
    found = load_results(tmp_path / "demo", ["b", "a"], [0, 1])
    for wanted, result in zip(saved, found, strict=True):
        assert (result.name, result.rows, result.keys) == (wanted.name, wanted.rows, wanted.keys)
        np.testing.assert_array_equal(result.replicates, wanted.replicates)
        assert [file.name for file in result.matches_files] == [f"{result.name}-0.npz", f"{result.name}-1.npz"]
    assert not list(tmp_path.rglob("*.partial"))


def test_columns_are_found_by_name_in_every_seed(tmp_path: Path) -> None:
    result = make_result("a", (0, 1))
    save_result(tmp_path / "demo", result)
    backwards = run_file(tmp_path / "demo", "replicates", "a", 1)
    write_replicates(
        backwards, ["of_another_time", *result.keys[::-1]], np.insert(result.replicates[1, :, ::-1], 0, 7, 1)
    )
    (found,) = load_results(tmp_path / "demo", ["a"], [0, 1])
    np.testing.assert_array_equal(found.replicates, result.replicates)


def test_a_published_model_counts_once_whatever_the_seeds(tmp_path: Path) -> None:
    save_result(tmp_path / "demo", make_result("ready", (0, 1, 2), best_epoch=0))
    save_result(tmp_path / "demo", make_result("trained", (0, 1, 2)))
    ready, trained = load_results(tmp_path / "demo", ["ready", "trained"], [0, 1, 2])
    assert [len(result.rows) for result in (ready, trained)] == [1, 3]
    assert ready.number(AP) == (*ready.row.numbers[AP].model_dump().values(), None, 1)
    (comparison,) = compare_by_question([contrast(ready, trained)], 10, 0)
    assert comparison.difference.num_seeds == 3
    assert comparison.difference.value == pytest.approx(trained.number(F1).value - ready.number(F1).value)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-300])


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[60:-200] = bytes(len(content) - 260)
    file.write_bytes(content)


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "no such file": lambda file: file.write_text("not\nwhat was wanted"),
    "cut short": cut_short,
}


@pytest.mark.parametrize("breakage", BREAKAGES)
@pytest.mark.parametrize("stage", ["evaluate", "evaluate_ablation"])
def test_missing_or_broken_replicates_name_file_and_stage_in_one_line(
    breakage: str, stage: str, tmp_path: Path
) -> None:
    save_result(tmp_path / "demo", make_result("a", (0, 1)))
    BREAKAGES[breakage](run_file(tmp_path / "demo", "replicates", "a", 1))
    message = rf"demo/replicates/a-1\.parquet: no readable replicates \(.+\): run `dvc repro {stage}@a-1`$"
    with pytest.raises(UserError, match=message) as found:
        load_results(tmp_path / "demo", ["a"], [0, 1], stage)
    assert "\n" not in str(found.value)


def test_replicates_without_a_number_of_the_row_are_refused(tmp_path: Path) -> None:
    result = make_result("a")
    save_result(tmp_path / "demo", result)
    write_replicates(run_file(tmp_path / "demo", "replicates", "a", 0), result.keys[1:], result.replicates[0][:, 1:])
    message = r"replicates/a-0\.parquet: column 'oks/AP' is missing.*run `dvc repro evaluate@a-0`$"
    with pytest.raises(UserError, match=message):
        load_results(tmp_path / "demo", ["a"], [0])


def test_a_missing_row_is_told_of_before_its_replicates(tmp_path: Path) -> None:
    save_result(tmp_path / "demo", make_result("a"))
    run_file(tmp_path / "demo", "rows", "a", 0).unlink()
    run_file(tmp_path / "demo", "replicates", "a", 0).unlink()
    with pytest.raises(UserError, match=r"rows/a-0\.json: missing.*run `dvc repro evaluate@a-0`$"):
        load_results(tmp_path / "demo", ["a"], [0])


@pytest.mark.parametrize("other", [("b", 0), ("a", 1)])
def test_results_of_other_data_are_refused(other: tuple[str, int], tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_result(tmp_path / "demo", make_result(name, (0, 1)))
    row = make_row(*other)
    changed = row.model_copy(update={"data": row.data.model_copy(update={"sha256": "e" * 64})})
    write_row(changed, run_file(tmp_path / "demo", "rows", *other))
    message = rf"^{other[0]}-{other[1]}: data: found e{{64}}, wanted d{{64}} as of a-0: run `dvc repro`$"
    with pytest.raises(UserError, match=message):
        load_results(tmp_path / "demo", ["a", "b"], [0, 1])


@pytest.mark.parametrize("other", [("b", 0), ("a", 1)])
def test_results_of_other_draws_are_refused(other: tuple[str, int], tmp_path: Path) -> None:
    """Also when there are fewer of them, so that the tables have other shapes."""
    for name in ("a", "b"):
        save_result(tmp_path / "demo", make_result(name, (0, 1)))
    fewer = make_result(other[0], (0, 1), num_resamples=20)
    protocol = fewer.row.protocol.model_copy(update={"intervals": "percentile, 20 resamples of the images, seed 0"})
    fewer = fewer._replace(rows=[row.model_copy(update={"protocol": protocol}) for row in fewer.rows])
    save_result(tmp_path / "demo", fewer, seeds=[other[1]])
    message = (
        rf"^{other[0]}-{other[1]}: intervals: found percentile, 20 .*, wanted percentile, 60 .* as of a-0: run `dvc"
    )
    with pytest.raises(UserError, match=message):
        load_results(tmp_path / "demo", ["a", "b"], [0, 1])


# Poses, for what is tested by permutation.


def make_people(num_images: int) -> People:
    """One person an image, by turns medium and large."""
    keypoints = np.random.default_rng(0).uniform(0, 100, size=(num_images, 17, 2))
    return People(
        image=np.arange(num_images),
        keypoints=keypoints,
        visibility=np.full((num_images, 17), 2),
        area=np.where(np.arange(num_images) % 2, 8000.0, 12000.0),
        bbox=np.tile([0.0, 0.0, 100.0, 120.0], (num_images, 1)),
        crowd=np.zeros(num_images, dtype=bool),
        num_keypoints=np.full(num_images, 17),
        annotation_id=np.arange(num_images),
    )


def detect(people: People, error: Floats | float, seed: int) -> Detections:
    """A pose of each person, off by some pixels."""
    rng = np.random.default_rng(seed)
    num = len(people.image)
    off = rng.normal(size=people.keypoints.shape) * np.broadcast_to(error, num)[:, None, None]
    keypoints = people.keypoints + off
    return Detections(people.image, keypoints, np.ones((num, 17)), rng.uniform(size=num), extent_area(keypoints))


def trade(first: Detections, second: Detections, coin: NDArray[np.integer]) -> tuple[Detections, Detections]:
    """The two with the images traded where the coin says so; person i is that of image i."""

    def pick(of_own: NDArray, of_other: NDArray) -> NDArray:
        return np.where(coin.reshape(-1, *[1] * (of_own.ndim - 1)) > 0, of_other, of_own)

    return (
        Detections(first.image, *map(pick, first[1:], second[1:])),
        Detections(first.image, *map(pick, second[1:], first[1:])),
    )


def find_stats(people: People, detections: Detections) -> Floats:
    return np.array(list(OKSEvaluation(match(people, detections, len(people.image))).stats.values()))


def result_of_poses(folder: Path, name: str, people: People, *seeds: Detections, best_epoch: int = 3) -> Result:
    """A result whose OKS numbers are those of these poses, one set for each training seed."""
    num_images = len(people.image)
    counts = draw_resampling(num_images, NUM_RESAMPLES, "percentile", np.random.default_rng(0)).counts
    files, stats = [], []
    for seed, detections in enumerate(seeds):
        matches = match(people, detections, num_images)
        files.append(run_file(folder, "matches", name, seed))
        write_matches(files[-1], matches)
        evaluation = OKSEvaluation(matches)
        stats.append(np.stack([evaluation.stats_of(row) for row in counts]))
    columns = {oks(stat): np.stack(stats)[:, :, i] for i, stat in enumerate(STATS)}
    data = make_row(name).data.model_copy(update={"num_images": num_images, "num_persons": num_images})
    return make_result(
        name, range(len(seeds)), columns=columns, num_resamples=NUM_RESAMPLES, matches=files, data=data,
        best_epoch=best_epoch,
    )  # fmt: skip


def exact_p(people: People, first: Sequence[Detections], second: Sequence[Detections]) -> Floats:
    """By trading the poses themselves in all 2^I ways and matching anew, in the mean over seeds."""
    differences = []
    for coin in itertools.product((0, 1), repeat=len(people.image)):
        traded = [trade(a, b, np.array(coin)) for a, b in zip(first, second, strict=True)]
        differences.append(np.mean([find_stats(people, b) - find_stats(people, a) for a, b in traded], axis=0))
    size = np.abs(differences)
    return (size >= size[0] - 1e-12).mean(axis=0)


def test_matches_come_back_as_they_were(tmp_path: Path) -> None:
    people = make_people(4)
    matches = match(people, detect(people, 5.0, 0), 4)
    file = tmp_path / "deep" / "a-0.npz"
    write_matches(file, matches)
    found = read_matches(file)
    for name, array in matches._asdict().items():
        np.testing.assert_array_equal(getattr(found, name), array)
        assert getattr(found, name).dtype == array.dtype
    assert [x.name for x in file.parent.iterdir()] == ["a-0.npz"]


def without_member(file: Path) -> None:
    with np.load(file) as arrays:
        kept = {name: arrays[name] for name in Matches._fields if name != "person"}
    with file.open("wb") as content:
        np.savez(content, **kept)


@pytest.mark.parametrize("breakage", [*BREAKAGES.values(), damage, without_member])
@pytest.mark.parametrize("stage", ["evaluate", "evaluate_ablation"])
def test_missing_or_broken_matches_name_file_and_stage_in_one_line(
    breakage: Callable[[Path], object], stage: str, tmp_path: Path
) -> None:
    people = make_people(4)
    save_result(tmp_path / "demo", result_of_poses(tmp_path / "demo", "a", people, detect(people, 5.0, 0)))
    breakage(run_file(tmp_path / "demo", "matches", "a", 0))
    (found,) = load_results(tmp_path / "demo", ["a"], [0], stage)
    message = rf"demo/matches/a-0\.npz: no readable matches \(.+\): run `dvc repro {stage}@a-0`$"
    with pytest.raises(UserError, match=message) as refused:
        read_matches(found.matches_files[0], found.stage)
    assert "\n" not in str(refused.value)


# Comparisons.


@pytest.mark.parametrize("num_seeds", [1, 3])
def test_a_result_does_not_differ_from_itself(num_seeds: int, tmp_path: Path) -> None:
    people = make_people(6)
    result = result_of_poses(tmp_path, "a", people, *[detect(people, 6.0, seed) for seed in range(num_seeds)])
    found = compare_by_question([contrast(result, result, key) for key in (AP, oks("AR"), F1, AUROC)], 50, 0)
    test = "permutation" if num_seeds == 1 else "bootstrap"  # trades know nothing of the luck of a training
    assert [comparison.test for comparison in found] == [test, test, "bootstrap", "bootstrap"]
    for comparison in found:
        assert comparison.difference == (0.0, 0.0, 0.0, None, num_seeds)
        assert (comparison.p, comparison.p_corrected, comparison.detectable) == (None, None, 0.0)
        assert comparison.is_unchanged
        assert comparison.verdict == "unchanged"


def test_differences_are_paired_draw_by_draw() -> None:
    """The luck of the images, wide as it is, is the same on both sides."""
    luck = np.random.default_rng(1).permutation(SPREAD)
    first, second = result_of("a", draws(0.5, luck)), result_of("b", draws(0.6, luck, SPREAD / 10))
    difference = paired_difference(contrast(first, second))
    assert difference.interval == pytest.approx((0.1, *(0.1 + np.quantile(SPREAD / 10, [0.025, 0.975]))))


def test_differences_are_paired_seed_by_seed() -> None:
    """Seeds lie far apart, but each gains the same."""
    first = result_of("a", draws(0.4, SPREAD), draws(0.6, SPREAD), draws(0.5, SPREAD))
    second = result_of("b", draws(0.5, SPREAD), draws(0.7, SPREAD), draws(0.6, SPREAD))
    (comparison,) = compare_by_question([contrast(first, second)], 10, 0)
    assert comparison.difference == (*[pytest.approx(0.1)] * 3, None, 3)


def test_seeds_that_disagree_widen_a_difference() -> None:
    first = result_of("a", draws(0.5, SPREAD), draws(0.5, SPREAD))
    second = result_of("b", draws(0.4, SPREAD), draws(0.8, SPREAD))
    assert paired_difference(contrast(first, second)).interval == pytest.approx((0.1, -0.1, 0.3))


def test_a_shift_is_found() -> None:
    rng = np.random.default_rng(0)
    luck, own = rng.normal(scale=0.05, size=NUM_RESAMPLES), rng.normal(scale=0.01, size=NUM_RESAMPLES)
    first, second = result_of("a", draws(0.5, luck)), result_of("b", draws(0.6, luck, own))
    (comparison,) = compare_by_question([contrast(first, second)], 10, 0)
    assert comparison.difference.value == pytest.approx(0.1)
    assert comparison.difference[:3] == pytest.approx(percentile_interval(0.1, 0.1 + own, 100))
    assert comparison.p == comparison.p_corrected == 1 / (NUM_RESAMPLES + 1)  # the smallest that 99 resamples can give
    assert comparison.detectable == pytest.approx((1.96 + 0.842) * own.std(ddof=1), rel=1e-3)
    assert comparison.is_clear
    (other_way,) = compare_by_question([contrast(second, first)], 10, 0)
    assert other_way.difference[:3] == pytest.approx(
        [-x for x in (0.1, comparison.difference[2], comparison.difference[1])]
    )
    assert other_way.p == comparison.p


def test_better_poses_are_found(tmp_path: Path) -> None:
    people = make_people(20)
    first = result_of_poses(tmp_path, "a", people, detect(people, 8.0, 0))
    second = result_of_poses(tmp_path, "b", people, detect(people, 4.0, 1))
    (comparison,) = compare_by_question([contrast(first, second, AP)], 999, 0)
    assert comparison.difference.low is not None and comparison.difference.low > 0.1
    assert comparison.p is not None and comparison.p < 0.01
    assert comparison.test == "permutation"
    assert comparison.num_images == 20
    assert comparison.is_clear


def permutation_p(trade: Trade) -> Floats:
    found = permuted_differences(trade)
    return p_values(found[0], found[1:], trade.num_images)


@pytest.mark.parametrize("num_images", [4, 5, 6])
def test_permutation_p_is_that_of_all_trades(num_images: int, tmp_path: Path) -> None:
    people, num = make_people(num_images), 1500
    errors = np.random.default_rng(num_images).uniform(2, 9, size=(2, num_images))
    a, b = (detect(people, error, seed) for seed, error in enumerate(errors))
    first, second = result_of_poses(tmp_path, "a", people, a), result_of_poses(tmp_path, "b", people, b)
    found = permutation_p(Trade.of(first, second, STATS, num, 0))
    wanted = exact_p(people, [a], [b])
    assert len(set(wanted)) > 3
    assert (np.abs(found - wanted) <= 4 * np.sqrt(wanted * (1 - wanted) / num) + 1 / num).all()


def test_seeds_that_cancel_are_no_difference(tmp_path: Path) -> None:
    people = make_people(6)
    good, bad = detect(people, 3.0, 0), detect(people, 9.0, 1)
    first, second = result_of_poses(tmp_path, "a", people, good, bad), result_of_poses(tmp_path, "b", people, bad, good)
    (comparison,) = compare_by_question([contrast(first, second, AP)], 50, 0)
    assert comparison.difference.value == pytest.approx(0.0, abs=1e-12)
    assert comparison.p == 1.0


def test_one_better_image_is_no_evidence_in_poses(tmp_path: Path) -> None:
    """To trade it turns the sign, to trade any other does nothing: all trades give as much."""
    people = make_people(6)
    errors = np.full(6, 6.0)
    first = detect(people, errors, 0)
    better = trade(first, detect(people, 0.0, 1), np.array([0, 0, 1, 0, 0, 0]))[0]._replace(score=first.score)
    (comparison,) = compare_by_question(
        [contrast(result_of_poses(tmp_path, "a", people, first), result_of_poses(tmp_path, "b", people, better), AP)],
        200,
        0,
    )
    assert comparison.difference.value is not None and comparison.difference.value > 0.02
    assert comparison.p == 1.0
    assert not comparison.is_clear


def test_one_better_image_is_no_evidence_in_presence() -> None:
    """A resample without it shows no difference, and none shows the contrary."""
    times = draw_resampling(20, 199, "percentile", np.random.default_rng(0)).counts[:, 7]
    first = result_of("a", np.full(200, 0.5))
    second = result_of("b", 0.5 + 0.02 * times)
    (comparison,) = compare_by_question([contrast(first, second)], 10, 0)
    assert comparison.difference.value == pytest.approx(0.02)
    assert comparison.difference.low == 0.0
    assert comparison.p == (1 + (times[1:] != 1).sum()) / 200 > 0.5
    assert not comparison.is_clear


def test_a_number_that_is_undefined_on_one_side_has_no_difference() -> None:
    first, second = result_of("a", draws(0.5, SPREAD)), result_of("b", draws(math.nan))
    (comparison,) = compare_by_question([contrast(first, second)], 10, 0)
    assert comparison.difference == (None, None, None, None, 1)
    assert (comparison.p, comparison.p_corrected, comparison.detectable) == (None, None, None)
    assert not comparison.is_clear


def test_adding_entries_to_a_question_changes_no_p_of_another() -> None:
    """Only the first question has entries added: its own p-values rise."""
    rng = np.random.default_rng(0)
    first = result_of("a", draws(0.5))

    def entry(name: str, question: str) -> Contrast:
        noisy = result_of(name, draws(0.51, rng.normal(scale=0.01, size=NUM_RESAMPLES)))
        return contrast(first, noisy)._replace(question=question)

    one, other = [entry(f"b{i}", "one") for i in range(3)], [entry(f"c{i}", "other") for i in range(3)]
    more = [entry(f"d{i}", "one") for i in range(20)]
    few, many = compare_by_question([*one, *other], 10, 0), compare_by_question([*one, *more, *other], 10, 0)
    assert many[-3:] == few[3:]
    assert [line.second for line in many[:3]] == ["b0", "b1", "b2"]
    assert all(later.p == sooner.p for later, sooner in zip(many[:3], few[:3], strict=True))
    assert sum(line.p_corrected or 0 for line in many[:3]) > sum(line.p_corrected or 0 for line in few[:3]) + 0.1


def test_what_is_undefined_or_unchanged_does_not_count() -> None:
    rng = np.random.default_rng(0)
    first = result_of("a", draws(0.5))
    family = [contrast(first, result_of(x, draws(0.52, rng.normal(scale=0.01, size=NUM_RESAMPLES)))) for x in "bc"]
    undefined = contrast(first, result_of("e", draws(math.nan)))
    alone, together = (
        compare_by_question(lines, 10, 0)
        for lines in (family, [family[0], undefined, contrast(first, first), family[1]])
    )
    assert [together[0], together[3]] == alone
    assert [line.verdict for line in together[1:3]] == ["not clearly different", "unchanged"]
    assert [line.p_corrected for line in together[1:3]] == [None, None]


def test_a_question_is_corrected_over_both_kinds_of_tests(tmp_path: Path) -> None:
    """Also where they have other numbers of draws."""
    people = make_people(8)
    first, second = (
        result_of_poses(tmp_path, name, people, detect(people, x, i))
        for i, (name, x) in enumerate(zip("ab", (8.0, 4.0), strict=True))
    )
    for num in (99, 250):
        (alone,) = compare_by_question([contrast(first, second, AP)], num, 0)
        together = compare_by_question([contrast(first, second, key) for key in (AP, oks("AP50"), F1)], num, 0)
        assert alone.p is not None
        assert alone.p == alone.p_corrected == together[0].p
        assert all(line.p_corrected is None or line.p_corrected >= (line.p or 0) for line in together)


@pytest.mark.parametrize(("num_images", "smallest"), [(1, None), (2, 0.5), (5, 1 / 16), (19, 1 / 100), (20, 1 / 100)])
def test_few_images_give_no_small_p_and_no_verdict(num_images: int, smallest: float | None) -> None:
    first, second = (
        result._replace(drawn_images=num_images)
        for result in (result_of("a", draws(0.5, SPREAD)), result_of("b", draws(0.6, SPREAD)))
    )
    (found,) = compare_by_question([contrast(first, second)], 10, 0)
    assert found.difference.value == pytest.approx(0.1)
    assert (found.difference.low is None) == (num_images == 1)
    assert found.p == found.p_corrected == smallest
    assert found.is_clear == (num_images == 20)
    assert found.verdict == ("better" if num_images == 20 else "too few images (n < 20)")


def test_one_image_leaves_a_pooled_number_without_bounds() -> None:
    result = result_of("a", draws(0.5, SPREAD), draws(0.6, SPREAD))._replace(drawn_images=1)
    assert result.number(F1)[:3] == (pytest.approx(0.55), None, None)


def test_oks_numbers_alone_are_permuted() -> None:
    """Another protocol's numbers have other matches than those stored, and presence has none."""
    a, b = make_result("a", head=True), make_result("b", head=True, detected=True)

    def stat(first: str, second: str) -> str | None:
        return Contrast("x", side(a, first), side(b, second), "").stat

    assert [stat(oks(name), oks(name)) for name in STATS] == list(STATS)
    assert stat(oks("AP"), oks("AR")) is None
    assert stat(oks("AP"), annotated_boxes("AP")) is None
    assert stat(score_rule("box", "AP"), score_rule("box", "AP")) is None
    assert stat(presence(ALWAYS_PRESENT, "F1"), presence(ALWAYS_PRESENT, "F1")) is None


@pytest.mark.parametrize(
    ("p_corrected", "low", "high", "clear"),
    [
        (0.049, 0.1, 0.3, True),
        (0.049, -0.3, -0.1, True),
        (0.05, 0.1, 0.3, False),
        (0.2, 0.1, 0.3, False),
        (0.001, -0.1, 0.5, False),  # the images would do, but not the seeds
        (0.001, 0.0, 0.5, False),
        (0.001, None, None, False),
        (None, 0.1, 0.3, False),
    ],
)
def test_only_what_p_and_interval_allow_is_clear(
    p_corrected: float | None, low: float | None, high: float | None, clear: bool
) -> None:
    summary = Summary(0.2, low, high, None, 3)
    assert Comparison("a", "b", "AP", summary, 0.001, p_corrected, 0.1, "permutation", 20).is_clear is clear


def only(result: Result) -> Result:
    """Its first training seed."""
    return result._replace(rows=result.rows[:1], matches_files=result.matches_files[:1])


def test_seeds_that_disagree_are_no_finding_however_sure_the_images_are(tmp_path: Path) -> None:
    people = make_people(10)
    first = result_of_poses(tmp_path, "a", people, *[detect(people, 6.0, 0)] * 2)
    second = result_of_poses(tmp_path, "b", people, detect(people, 2.0, 1), detect(people, 7.5, 2))
    (comparison,) = compare_by_question([contrast(first, second, AP)], 999, 0)
    assert permutation_p(Trade.of(only(first), only(second), ["AP"], 999, 0))[0] < 0.05  # of the first seed alone
    assert comparison.test == "bootstrap"
    assert comparison.p is not None and comparison.p > 0.05
    assert comparison.difference.low is not None and comparison.difference.low < 0
    assert not comparison.is_clear
