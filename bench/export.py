"""Predictions of one run as a COCO result file, for COCO's server and for other tools.

python -m bench.export demo vitpose_presence 0 person_keypoints_val2017_vitpose_results.json
"""

from pathlib import Path

from bench.config import EvaluateParams
from bench.data.coco import read_coco
from bench.data.people import Truth
from bench.data.predictions import DETECTED, VAL, read_split
from bench.data.results import write_results
from bench.inference.poses import scored_detections
from bench.stages.command import run_command
from bench.stages.files import RunFiles, has_detections, manifest_file, plan_dir, read_model


def main(profile: str, run: str, seed: int, file: Path) -> None:
    """Write the val poses that stage evaluate scores: on detected boxes where the profile has them, after OKS-NMS.

    Coordinates and scores are those that the run's numbers were computed from, in full precision.
    """
    params = read_model(plan_dir(profile) / run / "evaluate.json", EvaluateParams)
    boxes = DETECTED if has_detections(profile) else VAL
    split = read_split(RunFiles(profile, run, seed).predictions, boxes, params.presence_policy)
    truth = Truth.of(read_coco(manifest_file(profile, VAL)))
    poses = scored_detections(split, truth, params.score_rule, params.oks_nms)
    write_results(file, truth.image_ids[poses.image], poses.keypoints, poses.keypoint_score, poses.score)
    again = f"python -m bench.score {file} {manifest_file(profile, VAL)}"
    print(f"{file}: {len(poses.score)} poses on {boxes}, scored by {params.score_rule}; the run's numbers: {again}")


if __name__ == "__main__":
    run_command(main)
