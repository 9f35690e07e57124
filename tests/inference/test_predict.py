"""The way back: perfect heatmaps give the true keypoints in image pixels, whatever the crop did to them."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.models.vitpose.image_processing_vitpose import (
    get_keypoint_predictions,
    post_dark_unbiased_data_processing,
)

from bench.data.augment import Augmentation
from bench.data.coco import Person
from bench.data.codec import Codec, decode_argmax, decode_dark, encode
from bench.data.dataset import Crop, PoseDataset, normalise, ordered_loader
from bench.data.geometry import bbox_to_view
from bench.data.keypoints import flip_order
from bench.data.presence import Labels
from bench.inference.predict import Predictions, predict, run_model
from models import PoseOutput
from tests.views import Views

CODEC = Codec((64, 96), (16, 24), 4.0)
PADDING = 1.25
NUM_PERSONS = 7


ROTATED = Views(rotation=60)
CUT = Views(rotation=60, scale=0.4, shift=0.5)
VIEWS = {"plain": None, "rotated": ROTATED, "cut": CUT}


@pytest.fixture(scope="module")
def persons(tmp_path_factory: pytest.TempPathFactory) -> list[Person]:
    """Noise with keypoints at random places of boxes that also leave the image."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    return [make_person(folder / f"{number}.png", number, rng) for number in range(NUM_PERSONS)]


def make_person(file: Path, number: int, rng: np.random.Generator) -> Person:
    cv2.imwrite(str(file), rng.integers(0, 255, (120, 160, 3), dtype=np.uint8))
    bbox = np.concatenate([rng.uniform(-10, 80, 2), rng.uniform(30, 90, 2)])
    keypoints = bbox[:2] + rng.uniform(0, 1, (17, 2)) * bbox[2:]
    labels = Labels(np.full(17, 2), None)
    return Person(100 + number, 10 + number, file, bbox, 1.0, keypoints, labels)


def make_samples(persons: list[Person], augmentation: Augmentation | None) -> PoseDataset:
    return PoseDataset(persons, Crop(CODEC.input_size, PADDING), "labelled", augmentation, seed=3)


class Oracle(nn.Module):
    """Knows every sample by its pixels, and those of its mirror image: heatmaps are the encoded truth.

    `tint` tells which of both was asked: the logits are the keypoint's number, plus `tint` for mirrored images.
    """

    def __init__(self, samples: PoseDataset, tint: float = 0.0) -> None:
        super().__init__()
        self.truth: dict[bytes, tuple[Tensor, Tensor]] = {}
        order = flip_order()
        number = torch.arange(17.0)
        for index in range(len(samples.persons)):
            sample = samples[0, index]
            image, points = normalise(sample.image[None]), sample.keypoints_input
            mirrored = torch.stack([CODEC.input_size[0] - 1 - points[:, 0], points[:, 1]], dim=1)
            self.truth[image.numpy().tobytes()] = (points, number)
            self.truth[image.flip(-1).contiguous().numpy().tobytes()] = (mirrored[order], number[order] + tint)

    def forward(self, image: Tensor) -> PoseOutput:
        assert not self.training
        found = [self.truth[one.contiguous().numpy().tobytes()] for one in image]
        points, logits = (torch.stack(values) for values in zip(*found, strict=True))
        heatmaps, _ = encode(points, torch.ones(points.shape[:2]), CODEC)
        return PoseOutput(heatmaps, logits)


def predict_with_oracle(samples: PoseDataset, *, decoding: str, flip_test: bool, batch_size: int = 3) -> Predictions:
    loader = ordered_loader(samples, batch_size, num_workers=0)
    return predict(Oracle(samples), loader, CODEC, decoding=decoding, flip_test=flip_test)


def distances(predictions: Predictions, samples: PoseDataset, margin: float) -> np.ndarray:
    """From the truth, in heatmap pixels, of the keypoints at least `margin` input pixels inside of the crop."""
    found = []
    for index, person in enumerate(samples.persons):
        sample = samples[0, index]
        points, size = sample.keypoints_input.numpy(), np.array(CODEC.input_size) - 1
        within = ((points >= margin) & (points <= size - margin)).all(-1)
        offset = (predictions.keypoints[index] - person.keypoints) @ sample.matrix.numpy()[:, :2].T  # input pixels
        found.append(np.abs(offset / CODEC.stride).max(-1)[within])
    return np.concatenate(found)


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_dark_brings_keypoints_back_to_the_image(view: str, flip_test: bool, persons: list[Person]) -> None:
    """Within a fiftieth of a heatmap pixel where the whole Gaussian is seen, half a one at the border."""
    samples = make_samples(persons, VIEWS[view])
    predictions = predict_with_oracle(samples, decoding="dark", flip_test=flip_test)
    whole = distances(predictions, samples, margin=3 * CODEC.sigma)
    assert len(whole) > 20
    assert whole.max() < 0.02
    assert distances(predictions, samples, margin=0).max() < 0.5


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_argmax_brings_keypoints_back_to_half_a_heatmap_pixel(
    view: str, flip_test: bool, persons: list[Person]
) -> None:
    samples = make_samples(persons, VIEWS[view])
    found = distances(predict_with_oracle(samples, decoding="argmax", flip_test=flip_test), samples, margin=0)
    assert 0.4 < found.max() <= 0.5 + 1e-4


def test_some_views_cut_keypoints_away(persons: list[Person]) -> None:
    """Else the tests above would not show what they say."""
    plain, cut = make_samples(persons, None), make_samples(persons, CUT)
    labelled = NUM_PERSONS * 17
    assert len(distances(predict_with_oracle(plain, decoding="dark", flip_test=False), plain, margin=0)) == labelled
    assert len(distances(predict_with_oracle(cut, decoding="dark", flip_test=False), cut, margin=0)) < 0.9 * labelled


def test_the_plain_view_is_unwarped_by_hand(persons: list[Person]) -> None:
    """A peak at a heatmap pixel is at the same share of the padded box."""
    heatmaps = torch.zeros(NUM_PERSONS, 17, 24, 16)
    heatmaps[:, :, 23, 5] = 1.0

    class Fixed(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(heatmaps, None)

    loader = ordered_loader(make_samples(persons, None), NUM_PERSONS, num_workers=0)
    predictions = predict(Fixed(), loader, CODEC, decoding="argmax", flip_test=False)
    for person, keypoints in zip(persons, predictions.keypoints, strict=True):
        view = bbox_to_view(person.bbox, CODEC.input_size, PADDING)
        wanted = view.center + (np.array([5 / 15, 23 / 23]) - 0.5) * view.scale
        np.testing.assert_allclose(keypoints, np.tile(wanted, (17, 1)), atol=1e-4)
    assert predictions.presence_logits is None


@pytest.mark.parametrize("batch_size", [1, 3, NUM_PERSONS, 50])
def test_rows_are_in_the_order_of_the_persons_whatever_the_batches(batch_size: int, persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    found = predict_with_oracle(samples, decoding="dark", flip_test=True, batch_size=batch_size)
    wanted = predict_with_oracle(samples, decoding="dark", flip_test=True, batch_size=2)
    np.testing.assert_allclose(found.keypoints, wanted.keypoints, atol=1e-5)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-6)
    backwards = predict_with_oracle(make_samples(persons[::-1], None), decoding="dark", flip_test=True)
    np.testing.assert_allclose(backwards.keypoints[::-1], wanted.keypoints, atol=1e-5)


@pytest.mark.parametrize(("flip_test", "shift"), [(False, 0.0), (True, 3.0)])
def test_presence_is_the_models_logits_or_the_mean_of_both_sides(
    flip_test: bool, shift: float, persons: list[Person]
) -> None:
    """The mirrored image answers 6 more: as logits the mean is 3 more, as probabilities it would not be."""
    samples = make_samples(persons, None)
    loader = ordered_loader(samples, 3, num_workers=0)
    predictions = predict(Oracle(samples, tint=6.0), loader, CODEC, decoding="argmax", flip_test=flip_test)
    assert predictions.presence_logits is not None
    np.testing.assert_array_equal(predictions.presence_logits, np.tile(np.arange(17) + shift, (NUM_PERSONS, 1)))


def test_the_score_is_the_peak(persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    predictions = predict_with_oracle(samples, decoding="dark", flip_test=False)
    points = np.stack([samples[0, index].keypoints_input.numpy() for index in range(NUM_PERSONS)])
    nearest = np.round(points / CODEC.stride) * CODEC.stride
    wanted = np.exp(-((points - nearest) ** 2).sum(-1) / (2 * CODEC.sigma**2))
    np.testing.assert_allclose(predictions.score, wanted, rtol=1e-4)


def test_output_in_half_precision_is_decoded_in_full(persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    oracle = Oracle(samples)

    class Half(nn.Module):
        def forward(self, image: Tensor) -> PoseOutput:
            output = oracle(image)
            assert output.presence_logits is not None
            return PoseOutput(output.heatmaps.bfloat16(), output.presence_logits.bfloat16())

    model = Half()
    oracle.eval()
    for _, output in run_model(model, ordered_loader(samples, 3, num_workers=0), flip_test=True):
        assert (output.heatmaps.dtype, output.presence_logits.dtype) == (torch.float32, torch.float32)


# DARK beside transformers, which works on numpy with SciPy's Gaussian filter.

# A stride of 4 exactly, and a blur of .8 heatmap pixels within a radius of 2: what transformers does with kernel 5.
DARK_CODEC = Codec((61, 93), (16, 24), 6.4)


def slanted_gaussians(rng: np.random.Generator) -> np.ndarray:
    """Heatmaps whose log is a quadratic with a cross term, peaks two or more pixels from the border."""
    columns, rows = np.meshgrid(np.arange(16), np.arange(24))
    x, y = rng.uniform(4, 11, (2, 6, 17, 1, 1)) + np.array([0, 4]).reshape(2, 1, 1, 1, 1)
    along, across, angle = (
        rng.uniform(1.8, 2.6, (6, 17)),
        rng.uniform(1.2, 1.7, (6, 17)),
        rng.uniform(0, np.pi, (6, 17)),
    )
    cos, sin = (f(angle)[..., None, None] for f in (np.cos, np.sin))
    u, v = (columns - x) * cos + (rows - y) * sin, -(columns - x) * sin + (rows - y) * cos
    return np.exp(-((u / along[..., None, None]) ** 2 + (v / across[..., None, None]) ** 2) / 2).astype(np.float32)


def noisy(heatmaps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As a trained network's: peaks of different height on a rough ground that also goes below zero."""
    peaks = rng.uniform(0.3, 1.1, (*heatmaps.shape[:2], 1, 1))
    return (heatmaps * peaks + rng.normal(scale=0.01, size=heatmaps.shape)).astype(np.float32)


@pytest.mark.parametrize(("change", "tolerance"), [(lambda maps, _: maps, 0.01), (noisy, 0.05)], ids=["clean", "noisy"])
def test_dark_is_that_of_transformers(change: Callable[..., np.ndarray], tolerance: float) -> None:
    rng = np.random.default_rng(0)
    heatmaps = change(slanted_gaussians(rng), rng)
    peaks, scores = get_keypoint_predictions(heatmaps)
    wanted = post_dark_unbiased_data_processing(peaks.copy(), heatmaps, kernel=5)
    found = decode_dark(torch.from_numpy(heatmaps), DARK_CODEC)
    plain = decode_argmax(torch.from_numpy(heatmaps), DARK_CODEC)
    np.testing.assert_allclose(plain.keypoints_input.numpy() / 4, peaks)
    np.testing.assert_array_equal(found.score.numpy(), scores[..., 0])
    difference = np.abs(found.keypoints_input.numpy() / 4 - wanted)
    assert difference.max() < tolerance
    assert np.abs(wanted - peaks).max() > 0.4  # there was something to refine


@pytest.mark.parametrize("place", [(0, 9), (15, 9), (6, 0), (6, 23), (0, 0), (15, 23)])
def test_a_peak_at_the_border_stays_there_and_is_refined_along_it(place: tuple[int, int]) -> None:
    """Its outer neighbours are not seen; transformers repeats the border, which moves the peak out by half a pixel."""
    column, row = place
    along = torch.tensor([0.0 if column in {0, 15} else 0.3, 0.0 if row in {0, 23} else 0.3])
    truth = (torch.tensor([column, row]) + along) * 4
    heatmaps, _ = encode(truth.expand(1, 17, 2), torch.ones(1, 17), DARK_CODEC)
    found = decode_dark(heatmaps, DARK_CODEC).keypoints_input / 4
    np.testing.assert_allclose(found[0, 0], truth / 4, atol=0.03)


def test_a_slanted_peak_at_the_border_stays_on_it() -> None:
    """Its ridge runs out of the heatmap: what is refined along the border must not push it across."""
    columns, rows = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="xy")
    across, along = columns + 1, rows - 9.3
    heatmaps = torch.exp(-(across**2 + along**2 + across * along) / 6).expand(1, 17, 24, 16)
    found = decode_dark(heatmaps, DARK_CODEC).keypoints_input / 4
    assert found[0, 0, 0] == 0
    assert 0 < abs(float(found[0, 0, 1]) - round(float(found[0, 0, 1]))) < 0.5
