"""Stage presence at COCO's size: every policy, source and number, with 1,000 resamples."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.data.coco import CocoDict, persons_of, read_coco
from bench.data.geometry import Crop
from bench.data.predictions import CALIBRATION, STATISTICS, VAL, write_predictions
from bench.data.presence import POLICIES
from bench.data.windows import windows_of
from bench.inference.predict import Predictions
from bench.metrics.presence_study import RANKED
from bench.stages import floors, presence
from bench.stages.files import RunFiles, manifest_file, plan_dir, write_json
from bench.stages.predict import predictions_frame
from tests.perf.rates import record_number

FILES = RunFiles("p", "run", 0)
CROP = Crop((192, 256), 1.25, "extend", aligned=True)
NUM_RESAMPLES = 1000
SIZES = {"train": (2000, 800), CALIBRATION: (2000, 800), VAL: (6000, 2346)}  # persons, images


@pytest.fixture
def project(drawn: CocoDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The drawn persons over and over, in splits as large as COCO's, and a head that knows of their presence."""
    monkeypatch.chdir(tmp_path)
    for split, (num_persons, num_images) in SIZES.items():
        write_json(manifest_file("p", split), repeated(drawn, num_persons, num_images))
    crop = {"input_size": CROP.input_size, "bbox_padding": CROP.bbox_padding, "fit": CROP.fit}
    write_json(plan_dir("p") / "floors.json", crop | {"seed": 0})
    write_json(plan_dir("p") / "presence.json", {"num": NUM_RESAMPLES, "seed": 0})
    write_predictions(FILES.predictions, [predicted(split) for split in (CALIBRATION, VAL)])
    floors.main("p")
    yield tmp_path


def repeated(drawn: CocoDict, num_persons: int, num_images: int) -> CocoDict:
    images = [drawn["images"][i % len(drawn["images"])] | {"id": i + 1} for i in range(num_images)]
    people = [
        drawn["annotations"][i % len(drawn["annotations"])] | {"id": i + 1, "image_id": i % num_images + 1}
        for i in range(num_persons)
    ]
    return drawn | {"images": images, "annotations": people}


def predicted(split: str) -> pd.DataFrame:
    rng = np.random.default_rng(len(split))
    persons = persons_of(read_coco(manifest_file("p", split)))
    there = np.stack([person.labels.true_visibility for person in persons]) > 0
    found = Predictions(
        rng.uniform(0, 200, (*there.shape, 2)),
        np.clip(0.3 + 0.3 * there + rng.normal(scale=0.3, size=there.shape), 0, 1).astype(np.float32),
        (3.0 * there - 1 + rng.normal(size=there.shape)).astype(np.float32),
        {name: rng.random(there.shape).astype(np.float32) for name in STATISTICS},
    )
    return predictions_frame(split, persons, windows_of(persons, CROP), found)


def test_six_thousand_persons(benchmark: BenchmarkFixture, project: Path) -> None:
    """From the predictions file to the files of numbers, resamples and curves, in at most a minute on one core."""
    benchmark.pedantic(lambda: presence.main("p", "run", 0), rounds=1)
    numbers = pd.read_parquet(FILES.of_presence("presence"))
    assert set(POLICIES) == set(numbers["policy"])
    head = numbers.query("policy == 'true' and source == 'presence_head' and view == 'all' and metric == 'AUROC'")
    (auroc,) = head.loc[head["rule"] == RANKED, "value"]
    assert 0.9 < auroc < 1
    assert len(pd.read_parquet(FILES.of_presence("presence_replicates"))) == 1 + NUM_RESAMPLES
    record_number(benchmark, "seconds for presence of 6,000 persons", benchmark.stats.stats.median, at_most=60)
