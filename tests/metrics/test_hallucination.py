"""Where absent keypoints are put: by hand, and what must hold whatever is predicted."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.data.keypoints import KEYPOINT_NAMES, NUM_KEYPOINTS, OKS_SIGMAS, flip_order
from bench.errors import UserError
from bench.metrics.errors import NEAR
from bench.metrics.hallucination import METRICS, Landing, swap_distances, swap_rates

Floats = NDArray[np.float64]

AREA = 10_000.0  # its root is 100 pixels
NOSE, LEFT_SHOULDER, LEFT_WRIST, RIGHT_WRIST = (
    KEYPOINT_NAMES.index(name) for name in ("nose", "left_shoulder", "left_wrist", "right_wrist")
)
DIAGONAL = 40.0 * np.stack([np.arange(NUM_KEYPOINTS)] * 2, axis=1)  # so far apart that none is near another
FAR = np.array([5000.0, 0.0])
BELOW = np.array([0.0, 1000.0])


def reach(keypoint: int, area: float = AREA) -> float:
    """How far from this keypoint "near" goes, in pixels."""
    return math.sqrt(-2 * area * math.log(NEAR)) * 2 * float(OKS_SIGMAS[keypoint])


def land(predicted: Any, absent: Any, **changes: Any) -> Landing:
    """Of people that are all alike; what is not absent is present."""
    predicted, absent = np.asarray(predicted, dtype=np.float64), np.asarray(absent, dtype=bool)
    num_people = len(predicted)
    arguments = {
        "keypoints": np.stack([DIAGONAL] * num_people), "present": ~absent, "area": np.full(num_people, AREA),
        "image": np.arange(num_people),
    }  # fmt: skip
    return swap_distances(predicted, absent=absent, **(arguments | changes))


def all_but(*keypoints: int) -> NDArray[np.bool_]:
    """(1, K): only these are absent."""
    return np.isin(np.arange(NUM_KEYPOINTS), keypoints)[None]


def put(keypoint: int, position: Floats) -> Floats:
    """(1, K, 2): all on their places, but for one."""
    predicted = DIAGONAL.copy()
    predicted[keypoint] = position
    return predicted[None]


def test_a_distance_by_hand() -> None:
    """Three and four pixels from the shoulder, of a person whose area is 100 pixels squared."""
    landing = land(put(NOSE, DIAGONAL[LEFT_SHOULDER] + [3, 4]), all_but(NOSE))
    assert landing.distance[0, NOSE] == pytest.approx(0.05)
    assert landing.nearest[0, NOSE] == LEFT_SHOULDER
    assert landing.on_own[0, NOSE]
    assert not landing.on_mirror.any()
    assert not landing.on_other.any()
    assert np.isnan(np.delete(landing.distance, NOSE, axis=1)).all()
    assert (np.delete(landing.nearest, NOSE, axis=1) == -1).all()
    assert not np.delete(landing.on_own, NOSE, axis=1).any()


def test_the_mirror_partner_up_to_its_reach() -> None:
    for factor, near in ((0.0, True), (0.99, True), (1.01, False)):
        away = DIAGONAL[RIGHT_WRIST] + [0, factor * reach(RIGHT_WRIST)]
        landing = land(put(LEFT_WRIST, away), all_but(LEFT_WRIST))
        assert landing.on_mirror[0, LEFT_WRIST] == landing.on_own[0, LEFT_WRIST] == landing.swap[0, LEFT_WRIST] == near
        assert landing.nearest[0, LEFT_WRIST] == RIGHT_WRIST
        assert landing.distance[0, LEFT_WRIST] == pytest.approx(factor * reach(RIGHT_WRIST) / 100)


def test_a_mirror_partner_that_is_absent_itself_is_nowhere() -> None:
    landing = land(put(LEFT_WRIST, DIAGONAL[RIGHT_WRIST]), all_but(LEFT_WRIST, RIGHT_WRIST))
    assert not landing.on_mirror.any()
    assert not landing.on_own[0, LEFT_WRIST]
    assert landing.nearest[0, LEFT_WRIST] in (RIGHT_WRIST - 2, RIGHT_WRIST + 1)


def test_the_nose_has_no_partner() -> None:
    landing = land(put(NOSE, DIAGONAL[NOSE]), all_but(NOSE))
    assert not landing.on_mirror.any()


@pytest.mark.parametrize(("keypoint", "near"), [(LEFT_WRIST, True), (RIGHT_WRIST, True), (LEFT_SHOULDER, False)])
def test_another_person_s_wrist(keypoint: int, near: bool) -> None:
    """The same keypoint and its partner look like it; a shoulder does not."""
    other = DIAGONAL + BELOW
    predicted = np.concatenate([put(LEFT_WRIST, other[keypoint]), other[None]])
    absent = np.concatenate([all_but(LEFT_WRIST), all_but()])
    keypoints, image = np.stack([DIAGONAL, other]), np.array([4, 4])
    landing = land(predicted, absent, keypoints=keypoints, image=image)
    assert landing.on_other[0, LEFT_WRIST] == landing.swap[0, LEFT_WRIST] == near
    assert not landing.on_own[0, LEFT_WRIST]
    assert not land(predicted, absent, keypoints=keypoints, image=np.array([4, 5])).on_other.any()
    without = ~absent & ~np.array([[False], [True]])  # of the other person nothing is known
    assert not land(predicted, absent, keypoints=keypoints, image=image, present=without).on_other.any()


def test_near_is_on_the_scale_of_the_other_person() -> None:
    other = DIAGONAL + BELOW
    predicted = np.concatenate([put(LEFT_WRIST, other[LEFT_WRIST] + [reach(LEFT_WRIST) * 1.5, 0]), other[None]])
    absent = np.concatenate([all_but(LEFT_WRIST), all_but()])
    for factor, near in ((1.0, False), (4.0, True)):
        scene = {"keypoints": np.stack([DIAGONAL, other]), "image": np.array([0, 0])}
        landing = land(predicted, absent, area=np.array([AREA, AREA * factor]), **scene)
        assert landing.on_other[0, LEFT_WRIST] == near


def test_nobody_present_leaves_no_distance() -> None:
    landing = land(DIAGONAL[None], all_but(*range(NUM_KEYPOINTS)))
    assert np.isnan(landing.distance).all()
    assert (landing.nearest == -1).all()
    assert not (landing.on_own | landing.on_mirror | landing.on_other).any()
    rates = swap_rates(landing, np.array([0]), np.array([[1]]))[0]
    assert rates["on_own"].tolist() == rates["swap"].tolist() == [0]
    assert np.isnan(rates["distance"]).all()


def scene(seed: int, num_people: int = 30) -> dict[str, Any]:
    """Crowded people; each keypoint present, absent or unknown."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, (num_people, NUM_KEYPOINTS))
    return {
        "predicted": rng.uniform(0, 70, (num_people, NUM_KEYPOINTS, 2)),
        "keypoints": rng.uniform(0, 70, (num_people, NUM_KEYPOINTS, 2)),
        "present": kind == 0,
        "absent": kind == 1,
        "area": rng.uniform(500, 9000, num_people),
        "image": rng.integers(0, 8, num_people),
    }


def slow_landing(predicted: Any, keypoints: Any, present: Any, absent: Any, area: Any, image: Any) -> list[list[Any]]:
    """One keypoint after the other; (distance, nearest, on_own, on_mirror, on_other) of the absent ones, in order."""

    def near(position: Floats, person: int, k: int) -> bool:
        away = math.dist(position, keypoints[person, k])
        return bool(present[person, k]) and away <= reach(k, area[person]) * (1 + 1e-12)

    rows = []
    for n, k in np.argwhere(absent).tolist():
        position, partner = predicted[n, k], flip_order()[k]
        own = [j for j in range(NUM_KEYPOINTS) if present[n, j]]
        away = {j: math.dist(position, keypoints[n, j]) for j in own}
        nearest = min(away, key=away.__getitem__) if own else -1
        others = [m for m in range(len(image)) if m != n and image[m] == image[n]]
        rows.append(
            [
                away[nearest] / math.sqrt(area[n]) if own else math.nan,
                nearest,
                any(near(position, n, j) for j in own),
                near(position, n, partner),
                any(near(position, m, j) for m in others for j in (k, partner)),
            ]
        )
    return rows


@pytest.mark.parametrize("seed", range(5))
def test_landings_are_those_of_a_slow_version(seed: int) -> None:
    arguments = scene(seed)
    landing, absent = swap_distances(**arguments), arguments["absent"]
    found = [landing.distance, landing.nearest, landing.on_own, landing.on_mirror, landing.on_other]
    columns = np.array(slow_landing(**arguments), dtype=np.float64).T
    for values, wanted in zip(found, columns, strict=True):
        np.testing.assert_allclose(values[absent].astype(np.float64), wanted)
    assert landing.on_mirror.any()
    assert landing.on_other.any()
    assert not landing.swap[~absent].any()
    assert (landing.on_own >= landing.on_mirror).all()


def test_zoom_and_order_change_nothing() -> None:
    arguments = scene(1)
    landing = swap_distances(**arguments)
    zoomed = arguments | {
        "predicted": arguments["predicted"] * 3 + 50, "keypoints": arguments["keypoints"] * 3 + 50,
        "area": arguments["area"] * 9,
    }  # fmt: skip
    order = np.random.default_rng(0).permutation(len(arguments["image"]))
    shuffled = {name: values[order] for name, values in arguments.items()}
    for other, back in ((swap_distances(**zoomed), slice(None)), (swap_distances(**shuffled), np.argsort(order))):
        for found, wanted in zip(other, landing, strict=True):
            np.testing.assert_allclose(found[back].astype(np.float64), wanted.astype(np.float64))


def test_a_mirrored_scene_has_mirrored_landings() -> None:
    arguments, order = scene(2), flip_order()
    flipped = {name: values[:, order] if values.ndim > 1 else values for name, values in arguments.items()}
    landing, mirrored = swap_distances(**arguments), swap_distances(**flipped)
    for name in ("distance", "on_own", "on_mirror", "on_other"):
        found, wanted = getattr(mirrored, name)[:, order], getattr(landing, name)
        np.testing.assert_allclose(found.astype(np.float64), wanted.astype(np.float64))


def test_nothing_is_read_of_keypoints_that_are_not_there() -> None:
    arguments = scene(3)
    noise = np.random.default_rng(9).uniform(0, 70, arguments["keypoints"].shape)
    moved = arguments | {
        "keypoints": np.where(arguments["present"][..., None], arguments["keypoints"], noise),
        "predicted": np.where(arguments["absent"][..., None], arguments["predicted"], np.nan),
    }
    for found, wanted in zip(swap_distances(**moved), swap_distances(**arguments), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_rates_by_hand() -> None:
    """Three people in two images: a wrist on its partner, a wrist far away, and a nose on the shoulder."""
    predicted = np.concatenate(
        [put(LEFT_WRIST, DIAGONAL[RIGHT_WRIST]), put(LEFT_WRIST, FAR), put(NOSE, DIAGONAL[LEFT_SHOULDER] + [10, 0])]
    )
    absent = np.concatenate([all_but(LEFT_WRIST), all_but(LEFT_WRIST), all_but(NOSE)])
    image = np.array([0, 1, 1])
    landing = land(predicted, absent)
    pooled, *by_keypoint = swap_rates(landing, image, np.array([[1, 1], [2, 0], [0, 1], [0, 0]]))
    assert list(pooled) == list(METRICS)
    far = landing.distance[1, LEFT_WRIST]
    assert pooled["on_own"].tolist()[:3] == [2 / 3, 1, 1 / 2]
    assert pooled["on_mirror"].tolist()[:3] == pooled["swap"].tolist()[:3] == [1 / 3, 1, 0]
    assert pooled["on_other"].tolist()[:3] == [0, 0, 0]
    np.testing.assert_allclose(pooled["distance"][:3], [0.1, 0, 0.1])  # the lower of two
    assert all(np.isnan(values[3]) for values in pooled.values())
    assert len(by_keypoint) == NUM_KEYPOINTS
    wrist = by_keypoint[LEFT_WRIST]
    np.testing.assert_allclose(wrist["on_mirror"], [0.5, 1, 0, np.nan])
    np.testing.assert_allclose(wrist["distance"], [0, 0, far, np.nan])
    assert np.isnan(by_keypoint[RIGHT_WRIST]["swap"]).all()


def test_a_data_set_is_as_if_its_images_were_repeated() -> None:
    arguments = scene(4)
    image, landing = arguments["image"], swap_distances(**arguments)
    times = np.array([2, 0, 1, 3, 1, 0, 0, 1])
    repeated = np.repeat(np.arange(len(image)), times[image])
    wanted = swap_rates(Landing(*(values[repeated] for values in landing)), image[repeated], np.ones((1, 8), dtype=int))
    for found, other in zip(swap_rates(landing, image, times[None]), wanted, strict=True):
        for name in METRICS:
            np.testing.assert_allclose(found[name], other[name])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"predicted": np.zeros((30, 17))}, r"found predicted of shape \(30, 17\), wanted \(30, 17, 2\)"),
        ({"area": np.zeros((30, 17))}, r"found area of shape \(30, 17\), wanted \(30,\)"),
        ({"absent": np.ones((30, 17), dtype=bool)}, r"person 0, keypoint \d+ both present and absent"),
        ({"predicted": np.full((30, 17, 2), np.nan)}, r"person 0, keypoint \d+ absent and put nowhere"),
    ],
)
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"hallucination: .*{message}"):
        swap_distances(**(scene(0) | change))
