"""Tables on disk."""

from pathlib import Path

import pandas as pd
from pyarrow import ArrowException

from bench.writing import written_whole

UNREADABLE = (OSError, ValueError, ArrowException)
"""What pandas and pyarrow raise at a file that is missing, or broken in whatever way."""


def write_parquet(file: Path, frame: pd.DataFrame) -> None:
    """Raises:
    UserError: it cannot be written.
    """
    with written_whole(file) as partial:
        frame.to_parquet(partial, index=False)
