"""Stage `resolve` where nothing has changed, on a data set of COCO's size: 123,287 pictures, 240 MB of annotations."""

from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from bench.config import DataParams, NumPersons
from bench.stages.resolve import input_digests
from tests.perf.rates import record_number, seconds

NUM_PICTURES = {"train2017": 118_287, "val2017": 5_000}
NUM_BYTES = {"train2017": 238_000_000, "val2017": 10_000_000}


def test_looking_at_the_files_of_coco(benchmark: BenchmarkFixture, tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for split, number in NUM_PICTURES.items():
        (tmp_path / split).mkdir()
        for i in range(number):
            (tmp_path / split / f"{i:012d}.jpg").touch()
        (tmp_path / "annotations" / f"person_keypoints_{split}.json").write_bytes(bytes(NUM_BYTES[split]))
    data = DataParams(
        source="coco",
        root=str(tmp_path),
        detections=None,
        min_detection_score=None,
        seed=0,
        num_persons=NumPersons(train="all", calibration=2000, val="all"),
        on_broken="error",
        drawn=None,
    )
    first = input_digests(data)
    assert len(first) == 4
    assert all(first.values())
    times = [seconds(lambda: input_digests(data)) for _ in range(3)]
    benchmark.pedantic(input_digests, args=(data,), rounds=1)
    record_number(benchmark, "seconds to look at 123,287 pictures and 248 MB of annotations", min(times), at_most=3)
    (tmp_path / "val2017" / "000000000007.jpg").write_text("other")
    assert [path for path, found in input_digests(data).items() if found != first[path]] == [str(tmp_path / "val2017")]
