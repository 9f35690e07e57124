"""Stage card: what the model card of one run says beside its row."""

from bench.stages.command import run_command
from bench.stages.files import RunFiles, write_text
from bench.stages.run_record import card_of, open_record


def main(profile: str, run: str, seed: int) -> None:
    """Write runs/<profile>/cards/<run>-<seed>.json."""
    files = RunFiles(profile, run, seed)
    write_text(files.card, f"{card_of(open_record(files)).model_dump_json(indent=1)}\n")  # in its own order


if __name__ == "__main__":
    run_command(main)
