"""The study ranks sources and keypoints as they must be ranked, where how difficult they are is known."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from bench.metrics.presence import MACRO, POOLED, VIEWS, Labelled
from bench.metrics.presence_study import (
    GLOBAL,
    HALF,
    PER_KEYPOINT,
    RANKED,
    Number,
    Source,
    Splits,
    kendall_tau,
    study,
    study_calibration,
)

NUM_PERSONS, NUM_KEYPOINTS = 3000, 17
NOISES = (0.5, 0.8, 1.2, 2.0, 3.0)
"""Standard deviations around -1 for what is absent and 1 for what is present, from easy to difficult."""
SYSTEMS = tuple(f"noise {noise}" for noise in NOISES)


def labelled(seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    present = rng.random((NUM_PERSONS, NUM_KEYPOINTS)) < 0.7
    return Labelled(present, np.ones(present.shape), np.arange(NUM_PERSONS))


def observed(labels: Labelled, noise: float | np.ndarray, seed: int) -> np.ndarray:
    """Log-odds of a Gaussian around -1 or 1, which is what knows best what such a noise lets be known."""
    sign = np.where(labels.present, 1.0, -1.0)
    seen = sign + noise * np.random.default_rng(seed).normal(size=sign.shape)
    return 2 * seen / noise**2 + np.log(0.7 / 0.3)


@pytest.fixture(scope="module")
def splits() -> Splits:
    return Splits(labelled(0), labelled(1))


def source(splits: Splits, noise: float | np.ndarray) -> Source:
    logits = (observed(splits.calibration, noise, 2), observed(splits.val, noise, 3))
    return Source(expit(logits[0]), expit(logits[1]), is_probability=True, logits=logits)


ONCE = np.ones((1, NUM_PERSONS), dtype=np.int64)


@pytest.fixture(scope="module")
def numbers(splits: Splits) -> dict[Number, np.ndarray]:
    sources = {name: source(splits, noise) for name, noise in zip(SYSTEMS, NOISES, strict=True)}
    return study(sources, splits, ONCE) | study_calibration(sources, splits, ONCE)


def by_system(numbers: dict[Number, np.ndarray], rule: str, metric: str, view: str = POOLED) -> np.ndarray:
    return np.array([numbers[Number(name, rule, metric)][0, VIEWS.index(view)] for name in SYSTEMS])


RISES_WITH_NOISE = {
    RANKED: {"AUROC": False, "AP_present": False, "AP_absent": False, "FPR95": True},
    GLOBAL: {"F1": False, "balanced_accuracy": False, "MCC": False, "hallucinated": True},
    PER_KEYPOINT: {"F1": False, "balanced_accuracy": False, "MCC": False},
    HALF: {"F1": False, "balanced_accuracy": False, "MCC": False, "hallucinated": True},
    "none": {"Brier": True, "NLL": True},
    "temperature": {"Brier": True, "NLL": True},
    "platt": {"Brier": True, "NLL": True},
}


@pytest.mark.parametrize(
    ("rule", "metric", "rises"),
    [(rule, metric, rises) for rule, metrics in RISES_WITH_NOISE.items() for metric, rises in metrics.items()],
)
@pytest.mark.parametrize("view", [POOLED, MACRO])
def test_every_number_ranks_sources_by_their_noise(
    numbers: dict[Number, np.ndarray], rule: str, metric: str, rises: bool, view: str
) -> None:
    steps = np.diff(by_system(numbers, rule, metric, view))
    assert ((steps > 0) if rises else (steps < 0)).all()


def test_ranking_quality_is_that_of_the_two_gaussians(numbers: dict[Number, np.ndarray]) -> None:
    wanted = norm.cdf(2 / (np.sqrt(2) * np.array(NOISES)))  # two Gaussians 2 apart
    np.testing.assert_allclose(by_system(numbers, RANKED, "AUROC"), wanted, atol=0.008)


def test_keypoints_are_ranked_by_their_noise(splits: Splits) -> None:
    noise = np.linspace(0.6, 3, NUM_KEYPOINTS)
    found = study({"it": source(splits, noise)}, splits, ONCE)[Number("it", RANKED, "AUROC")][0, 2:]
    np.testing.assert_allclose(found, norm.cdf(2 / (np.sqrt(2) * noise)), atol=0.03)
    assert np.corrcoef(np.argsort(np.argsort(-found)), np.arange(NUM_KEYPOINTS))[0, 1] > 0.98


def test_labels_lost_at_random_keep_the_ranking(splits: Splits, numbers: dict[Number, np.ndarray]) -> None:
    """A fifth of what is there without a label: every number falls, none changes place."""
    lost = np.random.default_rng(4).random(splits.val.present.shape) < 0.2
    noisy = splits._replace(val=splits.val._replace(present=splits.val.present & ~lost))
    sources = {name: source(splits, noise) for name, noise in zip(SYSTEMS, NOISES, strict=True)}
    found = by_system(study(sources, noisy, ONCE), RANKED, "AUROC")
    clean = by_system(numbers, RANKED, "AUROC")
    assert (found < clean - 0.01).all()
    assert kendall_tau(found[None], clean[None]) == pytest.approx(1)
