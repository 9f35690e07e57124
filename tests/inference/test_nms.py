import math
import time
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.keypoints import CROWDPOSE_SIGMAS, OKS_SIGMAS
from bench.errors import UserError
from bench.inference import nms
from bench.inference.nms import oks_nms


class Found(NamedTuple):
    image: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    score: NDArray[np.float64]
    area: NDArray[np.float64]


def oks(a: int, b: int, found: Found, sigmas: NDArray[np.float64]) -> float:
    mean_area = (found.area[a] + found.area[b]) / 2 + np.spacing(1)
    total = 0.0
    for point, other, sigma in zip(found.keypoints[a], found.keypoints[b], sigmas, strict=True):
        (x, y), (u, v) = point.tolist(), other.tolist()
        total += math.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * sigma) ** 2 / mean_area / 2)
    return total / len(sigmas)


def plain_nms(found: Found, threshold: float, sigmas: NDArray[np.float64] = OKS_SIGMAS) -> list[bool]:
    """Every detection, best first, against those of its image that are kept already."""
    kept: list[int] = []
    for new in sorted(range(len(found.score)), key=lambda i: -found.score[i]):
        before = [old for old in kept if found.image[old] == found.image[new]]
        if all(oks(old, new, found, sigmas) <= threshold for old in before):
            kept.append(new)
    return [i in kept for i in range(len(found.score))]


def draw(seed: int, num_keypoints: int = 17, num_images: int = 5) -> Found:
    """Some people in each image, found 0 to 5 times; scores tie, areas may be 0, some detections are exact copies."""
    rng = np.random.default_rng(seed)
    people = rng.uniform(0, 200, (3 * num_images, num_keypoints, 2))
    person = np.repeat(np.arange(len(people)), rng.integers(6, size=len(people)))
    order = rng.permutation(len(person))
    person = person[order]
    noise = rng.normal(size=(len(person), num_keypoints, 2)) * rng.choice([0, 2, 8, 20], (len(person), 1, 1))
    return Found(
        image=rng.permutation(1000)[person // 3] - 500,
        keypoints=people[person] + noise,
        score=rng.choice([0.1, 0.5, 0.5, 0.9], len(person)) + rng.choice([0.0, 1e-3], len(person)),
        area=rng.choice([0.0, 400.0, 3000.0, 20000.0], len(person)),
    )


def same(found: Found, index: NDArray[np.integer]) -> Found:
    return Found(*(values[index] for values in found))


def pose(shift: float, num_keypoints: int = 17) -> NDArray[np.float64]:
    return np.stack([np.arange(num_keypoints) * 10.0 + shift, np.arange(num_keypoints) * 5.0], axis=1)


def row(scores: list[float], shifts: list[float]) -> Found:
    """Detections in one image, moved to the right, each of 10,000 square pixels."""
    poses = np.stack([pose(shift) for shift in shifts])
    return Found(np.zeros(len(scores), int), poses, np.array(scores), np.full(len(scores), 10_000.0))


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(25))
def test_equals_the_plain_loop(seed: int, threshold: float) -> None:
    found = draw(seed)
    kept = oks_nms(*found, threshold)
    assert kept.dtype == bool
    assert kept.tolist() == plain_nms(found, threshold)


def test_the_drawn_cases_hold_ties_copies_empty_areas_and_both_outcomes() -> None:
    found = [draw(seed) for seed in range(25)]
    assert all(len(set(case.score)) < len(case.score) for case in found)
    assert any((case.area == 0).any() for case in found)
    assert any(len(np.unique(case.keypoints, axis=0)) < len(case.keypoints) for case in found)
    shares = [oks_nms(*case, 0.9).mean() for case in found]
    assert 0.5 < np.mean(shares) < 0.95


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_plain_loop_in_small_chunks(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    found = draw(seed)
    monkeypatch.setattr(nms, "CHUNK", 3)
    assert oks_nms(*found, 0.5).tolist() == plain_nms(found, 0.5)


@pytest.mark.parametrize("sigmas", [CROWDPOSE_SIGMAS, OKS_SIGMAS[:1], 2 * OKS_SIGMAS[:5]])
def test_other_keypoints_have_their_own_sigmas(sigmas: NDArray[np.float64]) -> None:
    found = draw(3, num_keypoints=len(sigmas))
    assert oks_nms(*found, 0.5, sigmas).tolist() == plain_nms(found, 0.5, sigmas)


def test_nothing_and_one() -> None:
    nothing = Found(np.zeros(0, int), np.zeros((0, 17, 2)), np.zeros(0), np.zeros(0))
    assert oks_nms(*nothing, 0.9).shape == (0,)
    for threshold in (0.0, 1.0):
        assert oks_nms(*row([0.3], [0.0]), threshold).tolist() == [True]


def test_a_known_oks_on_both_sides_of_the_threshold() -> None:
    # All keypoints moved by d: OKS is the mean of exp(-d^2 / (2 area (2 sigma)^2)), here with the areas' mean, 10,000.
    found = row([0.9, 0.8], [0.0, 12.0])._replace(area=np.array([5_000.0, 15_000.0]))
    value = np.exp(-(12.0**2) / (2 * 10_000 * (2 * OKS_SIGMAS) ** 2)).mean()
    assert oks_nms(*found, value + 1e-9).tolist() == [True, True]
    assert oks_nms(*found, value - 1e-9).tolist() == [True, False]


def test_copies_go_below_one_and_stay_at_one() -> None:
    copies = row([0.5, 0.9, 0.7], [0.0, 0.0, 0.0])
    assert oks_nms(*copies, 0.999).tolist() == [False, True, False]
    assert oks_nms(*copies, 1.0).all()  # OKS must be above the threshold


def test_the_first_given_wins_among_equal_scores() -> None:
    tied = row([0.5] * 40, [0.0] * 40)
    assert np.flatnonzero(oks_nms(*tied, 0.9)).tolist() == [0]


def test_a_removed_detection_removes_nobody() -> None:
    # In a row at steps of d, each is like its neighbour only: the middle one goes, and the last one stays.
    step = 12.0
    near, far = (np.exp(-(d**2) / (2 * 10_000 * (2 * OKS_SIGMAS) ** 2)).mean() for d in (step, 2 * step))
    chain = row([0.9, 0.8, 0.7], [0.0, step, 2 * step])
    assert oks_nms(*chain, (near + far) / 2).tolist() == [True, False, True]


def test_images_do_not_touch_each_other() -> None:
    copies = row([0.9, 0.8, 0.7, 0.6], [0.0] * 4)._replace(image=np.array([7, -2, 7, 3]))
    assert oks_nms(*copies, 0.9).tolist() == [True, True, False, True]


@pytest.mark.parametrize("seed", range(5))
def test_order_changes_nothing_where_scores_differ(seed: int) -> None:
    found = draw(seed)
    rng = np.random.default_rng(seed)
    found = found._replace(score=rng.permutation(len(found.score)) / 10)
    order = rng.permutation(len(found.score))
    assert oks_nms(*same(found, order), 0.7).tolist() == oks_nms(*found, 0.7)[order].tolist()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_stays_and_has_no_like(seed: int) -> None:
    found = draw(seed)
    kept = same(found, np.flatnonzero(oks_nms(*found, 0.5)))
    assert oks_nms(*kept, 0.5).all()


def test_arguments_are_left_alone() -> None:
    found = draw(0)
    before = [values.copy() for values in found]
    oks_nms(*found, 0.5)
    for now, then in zip(found, before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_shapes_must_agree() -> None:
    found = row([0.9, 0.8], [0.0, 1.0])
    for name in ("keypoints", "score", "area"):
        with pytest.raises(UserError, match="OKS-NMS: found keypoints, image, score, area of shapes"):
            oks_nms(*found._replace(**{name: getattr(found, name)[:1]}), 0.9)
    with pytest.raises(UserError, match=r"\(2, 17, 2\).*wanted \[\(2, 14, 2\)"):
        oks_nms(*found, 0.9, CROWDPOSE_SIGMAS)


def test_twenty_thousand_detections_are_quick() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(1000), 20)
    found = Found(image, rng.uniform(0, 400, (20_000, 17, 2)), rng.random(20_000), np.full(20_000, 1e4))
    start = time.process_time()
    oks_nms(*found, 0.9)
    assert time.process_time() - start < 0.5
