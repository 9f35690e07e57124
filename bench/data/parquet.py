"""Tables on disk."""

from pathlib import Path

import pandas as pd

from bench.writing import written_whole


def write_parquet(file: Path, frame: pd.DataFrame) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    with written_whole(file) as partial:
        frame.to_parquet(partial, index=False)
