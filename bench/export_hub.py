"""python -m bench.export_hub FOLDER --run vitpose_presence-0: a run as a folder for a model hub. Nothing is uploaded.

`model.safetensors` the weights, `config.json` what rebuilds the model and reads its output,
`preprocessor_config.json` how a box becomes the input, `README.md` the model card.
"""

import shutil
from pathlib import Path
from typing import Annotated, Any

from typer import Option

from bench.data.keypoints import FLIP_PAIRS, KEYPOINT_NAMES
from bench.errors import UserError
from bench.reporting.hub_card import write_card
from bench.stages.command import run_command
from bench.stages.evaluated_run import EvaluatedRun, find_run, open_evaluated, preprocessing
from bench.stages.files import json_text
from bench.stages.run_model import build_arguments
from bench.stages.run_record import card_of, licence_of, origin, presence_facts
from bench.writing import written_whole


def main(
    folder: Path,
    run: Annotated[str, Option(help="<experiment>-<seed>, such as vitpose_presence-0")],
    profile: Annotated[str, Option(help="whose run it is")] = "demo",
) -> None:
    """Write a folder with a run's weights, all that rebuilds its model, and its model card."""
    files = find_run(profile, run)
    if folder.exists():
        raise UserError(f"{folder}: it exists, wanted a folder that is new")
    asked = open_evaluated(files)
    texts = {
        "config.json": json_text(config_of(asked)),
        "preprocessor_config.json": json_text(preprocessing(asked.trained)),
        "README.md": write_card(asked.row, card_of(asked)),
    }
    with written_whole(folder) as partial:
        partial.mkdir()
        shutil.copyfile(files.checkpoint, partial / "model.safetensors")
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
    print(f"{folder}: model.safetensors, {', '.join(texts)}")


def config_of(asked: EvaluatedRun) -> dict[str, Any]:
    """What rebuilds the model (`build_model`, arguments of `models.build_model`) and reads its output."""
    codec, test = asked.trained.codec, asked.trained.test
    return {
        "model_type": "keypoint-presence",
        "build_model": build_arguments(asked.trained.config, pretrained=False),
        "keypoint_names": list(KEYPOINT_NAMES),
        "flip_pairs": FLIP_PAIRS,
        "codec": codec._asdict(),
        "decoding": test.decoding,
        "flip_test": {"used": test.flip_test, "shift": codec.shift},
        "presence": presence_facts(asked, asked.read_presence()),
        "origin": origin(asked),
        "licence": licence_of(asked),
    }


if __name__ == "__main__":
    run_command(main)
