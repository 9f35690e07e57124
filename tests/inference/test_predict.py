"""The way back: perfect heatmaps give the true keypoints in image pixels, whatever the crop did to them."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bench.data.augment import Augmentation
from bench.data.coco import Person
from bench.data.codec import Codec, encode
from bench.data.dataset import PoseDataset, ordered_loader
from bench.data.geometry import Crop, bbox_to_view
from bench.data.keypoints import flip_order
from bench.data.presence import Labels
from bench.inference.predict import Predictions, predict, run_model
from bench.inference.statistics import heatmap_statistics
from models import PoseOutput
from tests.views import Views

INPUT_SIZE = (64, 96)
UDP, MSRA, DARK, MMPOSE_DARK = EVERY_CODEC = [
    Codec(name, INPUT_SIZE, (16, 24), 4.0) for name in ("udp", "msra", "dark", "mmpose_dark")
]
every_codec = pytest.mark.parametrize("codec", EVERY_CODEC, ids=[codec.name for codec in EVERY_CODEC])
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


def make_samples(persons: list[Person], augmentation: Augmentation | None = None, codec: Codec = UDP) -> PoseDataset:
    return PoseDataset(persons, Crop(INPUT_SIZE, PADDING, "extend", codec.aligned), "labelled", augmentation, seed=3)


class Oracle(nn.Module):
    """Knows every sample by its pixels, and those of its mirror image: heatmaps are the encoded truth.

    `tint` tells which of both was asked: the logits are the keypoint's number, plus `tint` for mirrored images.
    """

    def __init__(self, samples: PoseDataset, codec: Codec = UDP, tint: float = 0.0) -> None:
        super().__init__()
        self.codec = codec
        self.truth: dict[bytes, tuple[Tensor, Tensor]] = {}
        order = flip_order()
        number = torch.arange(17.0)
        for index in range(len(samples.persons)):
            sample = samples[0, index]
            image, points = sample.image, sample.keypoints_input
            mirrored = torch.stack([INPUT_SIZE[0] - 1 - points[:, 0], points[:, 1]], dim=1)
            self.truth[image.numpy().tobytes()] = (points, number)
            self.truth[image.flip(-1).contiguous().numpy().tobytes()] = (mirrored[order], number[order] + tint)

    def forward(self, image: Tensor) -> PoseOutput:
        assert not self.training
        assert image.dtype == torch.uint8
        found = [self.truth[one.contiguous().numpy().tobytes()] for one in image]
        points, logits = (torch.stack(values) for values in zip(*found, strict=True))
        heatmaps, _ = encode(points, torch.ones(points.shape[:2]), self.codec)
        return PoseOutput(heatmaps, logits, logits[..., None] * torch.tensor([-1, 0, 1]))


def predict_with_oracle(
    samples: PoseDataset, codec: Codec = UDP, *, decoding: str = "codec", flip_test: bool, batch_size: int = 3
) -> Predictions:
    loader = ordered_loader(samples, batch_size, num_workers=0)
    return predict(Oracle(samples, codec), loader, codec, decoding=decoding, flip_test=flip_test)


def distances(predictions: Predictions, samples: PoseDataset, codec: Codec, margin: float) -> np.ndarray:
    """From the truth, in heatmap pixels, of the keypoints at least `margin` of them from the edges of the heatmap."""
    found = []
    for index, person in enumerate(samples.persons):
        sample = samples[0, index]
        points = sample.keypoints_input.numpy() / codec.stride
        within = ((points >= margin) & (points <= np.array(codec.heatmap_size) - 1 - margin)).all(-1)
        offset = (predictions.keypoints[index] - person.keypoints) @ sample.matrix.numpy()[:, :2].T  # input pixels
        found.append(np.abs(offset / codec.stride).max(-1)[within])
    return np.concatenate(found)


@every_codec
@pytest.mark.parametrize("view", VIEWS)
def test_keypoints_come_back_to_the_image(view: str, codec: Codec, persons: list[Person]) -> None:
    """Within half a heatmap pixel; unrounded targets within a hundredth where the whole Gaussian is seen."""
    samples = make_samples(persons, VIEWS[view], codec)
    predictions = predict_with_oracle(samples, codec, flip_test=False)
    assert distances(predictions, samples, codec, margin=0).max() < 0.5 + 1e-3
    whole = distances(predictions, samples, codec, margin=4.5)
    assert len(whole) > 10
    assert (whole.max() < 0.01) == (codec != MSRA)


@pytest.mark.parametrize(("codec", "limit"), [(UDP, 0.01), (DARK, 0.01), (MMPOSE_DARK, 0.125 + 0.01)])
@pytest.mark.parametrize("view", VIEWS)
def test_the_flip_test_is_exact_when_aligned_and_else_an_eighth_off(
    view: str, codec: Codec, limit: float, persons: list[Person]
) -> None:
    """At stride 4 a mirrored heatmap lies 3/4 pixels too far left; the shift leaves 1/4, the average half of it."""
    samples = make_samples(persons, VIEWS[view], codec)
    predictions = predict_with_oracle(samples, codec, flip_test=True)
    whole = distances(predictions, samples, codec, margin=4.5)
    assert len(whole) > 10
    assert limit - 0.03 < whole.max() < limit
    assert distances(predictions, samples, codec, margin=0).max() < 0.5


@pytest.mark.parametrize("flip_test", [False, True])
@pytest.mark.parametrize("view", VIEWS)
def test_argmax_brings_keypoints_back_to_half_a_heatmap_pixel(
    view: str, flip_test: bool, persons: list[Person]
) -> None:
    samples = make_samples(persons, VIEWS[view])
    predictions = predict_with_oracle(samples, decoding="argmax", flip_test=flip_test)
    assert 0.4 < distances(predictions, samples, UDP, margin=0).max() <= 0.5 + 1e-4


def test_some_views_cut_keypoints_away(persons: list[Person]) -> None:
    """Else the tests above would not show what they say."""
    plain, cut = make_samples(persons, None), make_samples(persons, CUT)
    labelled = NUM_PERSONS * 17
    assert len(distances(predict_with_oracle(plain, flip_test=False), plain, UDP, margin=0)) == labelled
    assert len(distances(predict_with_oracle(cut, flip_test=False), cut, UDP, margin=0)) < 0.9 * labelled


def test_the_plain_view_is_unwarped_by_hand(persons: list[Person]) -> None:
    """A peak at a heatmap pixel is at the same share of the padded box."""
    heatmaps = torch.zeros(NUM_PERSONS, 17, 24, 16)
    heatmaps[:, :, 23, 5] = 1.0

    class Fixed(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(heatmaps, None)

    loader = ordered_loader(make_samples(persons, None), NUM_PERSONS, num_workers=0)
    predictions = predict(Fixed(), loader, UDP, decoding="argmax", flip_test=False)
    for person, keypoints in zip(persons, predictions.keypoints, strict=True):
        view = bbox_to_view(person.bbox, INPUT_SIZE, PADDING)
        wanted = view.center + (np.array([5 / 15, 23 / 23]) - 0.5) * view.scale
        np.testing.assert_allclose(keypoints, np.tile(wanted, (17, 1)), atol=1e-4)
    assert predictions.presence_logits is None


@pytest.mark.parametrize("batch_size", [1, 3, NUM_PERSONS, 50])
def test_rows_are_in_the_order_of_the_persons_whatever_the_batches(batch_size: int, persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    found = predict_with_oracle(samples, flip_test=True, batch_size=batch_size)
    wanted = predict_with_oracle(samples, flip_test=True, batch_size=2)
    np.testing.assert_allclose(found.keypoints, wanted.keypoints, atol=1e-5)
    np.testing.assert_allclose(found.score, wanted.score, atol=1e-6)
    backwards = predict_with_oracle(make_samples(persons[::-1], None), flip_test=True)
    np.testing.assert_allclose(backwards.keypoints[::-1], wanted.keypoints, atol=1e-5)


@pytest.mark.parametrize(("flip_test", "shift"), [(False, 0.0), (True, 3.0)])
def test_presence_is_the_models_logits_or_the_mean_of_both_sides(
    flip_test: bool, shift: float, persons: list[Person]
) -> None:
    """The mirrored image answers 6 more: as logits the mean is 3 more, as probabilities it would not be."""
    samples = make_samples(persons, None)
    loader = ordered_loader(samples, 3, num_workers=0)
    predictions = predict(Oracle(samples, tint=6.0), loader, UDP, decoding="argmax", flip_test=flip_test)
    assert predictions.presence_logits is not None
    np.testing.assert_array_equal(predictions.presence_logits, np.tile(np.arange(17) + shift, (NUM_PERSONS, 1)))


def test_the_score_is_the_peak(persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    predictions = predict_with_oracle(samples, flip_test=False)
    points = np.stack([samples[0, index].keypoints_input.numpy() for index in range(NUM_PERSONS)])
    places = points / UDP.stride
    wanted = np.exp(-((places - np.round(places)) ** 2).sum(-1) / 2)  # sigma is one heatmap pixel
    np.testing.assert_allclose(predictions.score, wanted, rtol=1e-4)


@pytest.mark.parametrize("flip_test", [False, True])
def test_statistics_are_of_the_heatmaps_that_the_score_is_of(flip_test: bool, persons: list[Person]) -> None:
    """The averaged ones under flip test: two peaks of half the height where the sides disagree."""
    heatmaps = torch.rand(NUM_PERSONS, 17, 24, 16, generator=torch.Generator().manual_seed(0))

    class Fixed(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(heatmaps, None)

    loader = ordered_loader(make_samples(persons), NUM_PERSONS, num_workers=0)
    predictions = predict(Fixed(), loader, UDP, decoding="argmax", flip_test=flip_test)
    seen = (heatmaps + heatmaps.flip(-1)[:, flip_order()]) / 2 if flip_test else heatmaps
    statistics = heatmap_statistics(seen)._asdict()
    np.testing.assert_array_equal(predictions.score, seen.amax((-2, -1)))
    assert tuple(predictions.statistics) == tuple(statistics)
    for name, values in statistics.items():
        np.testing.assert_array_equal(predictions.statistics[name], values)
        assert predictions.statistics[name].dtype == np.float32


def test_statistics_of_batches_are_in_the_order_of_the_persons(persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    found = predict_with_oracle(samples, flip_test=True, batch_size=3)
    wanted = predict_with_oracle(samples, flip_test=True, batch_size=NUM_PERSONS)
    for name, values in wanted.statistics.items():
        assert values.shape == (NUM_PERSONS, 17)
        assert len(np.unique(values.sum(axis=1))) == NUM_PERSONS
        np.testing.assert_allclose(found.statistics[name], values, rtol=1e-5, atol=1e-6)


def test_output_in_half_precision_is_decoded_in_full(persons: list[Person]) -> None:
    samples = make_samples(persons, None)
    oracle = Oracle(samples)

    class Half(nn.Module):
        def forward(self, image: Tensor) -> PoseOutput:
            return PoseOutput(*(part.bfloat16() for part in oracle(image)))

    oracle.eval()
    loader = ordered_loader(samples, 3, num_workers=0)
    for _, output in run_model(Half(), loader, flip_test=True, shift=False):
        assert {part.dtype for part in output} == {torch.float32}


@pytest.mark.parametrize(("shift", "columns"), [(False, [3, 12]), (True, [3, 13])])
def test_the_mirrored_output_is_shifted_where_asked(shift: bool, columns: list[int], persons: list[Person]) -> None:
    """A peak in column 3 of 16, whatever the image: mirrored it is in column 12, or one further."""
    heatmaps = torch.zeros(NUM_PERSONS, 17, 24, 16)
    heatmaps[..., 5, 3] = 1.0

    class Fixed(nn.Module):
        def forward(self, _: Tensor) -> PoseOutput:
            return PoseOutput(heatmaps, None)

    loader = ordered_loader(make_samples(persons), NUM_PERSONS, num_workers=0)
    ((_, output),) = run_model(Fixed(), loader, flip_test=True, shift=shift)
    assert output.heatmaps[0, 0, 5].nonzero().flatten().tolist() == columns
    assert (output.heatmaps[..., 5, columns] == 0.5).all()
    assert output.presence_logits is output.visibility_logits is None


def test_visibility_logits_are_averaged_as_presence_is(persons: list[Person]) -> None:
    samples = make_samples(persons)
    oracle = Oracle(samples, tint=6.0)
    for _, output in run_model(oracle, ordered_loader(samples, 3, num_workers=0), flip_test=True, shift=False):
        assert output.visibility_logits is not None
        for number in range(17):
            found = output.visibility_logits[0, number].tolist()
            assert found == [-(number + 3), 0, number + 3]
