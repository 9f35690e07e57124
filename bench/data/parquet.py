"""Tables on disk."""

from pathlib import Path

import pandas as pd


def write_parquet(file: Path, frame: pd.DataFrame) -> None:
    """Write whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    frame.to_parquet(partial, index=False)
    partial.replace(file)
