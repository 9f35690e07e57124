"""Questions to git."""

import subprocess
from pathlib import Path

from bench.errors import UserError


def git(folder: Path, *arguments: str) -> str:
    """What git prints, run in a folder.

    Raises:
        UserError: there is no git, or it fails.
    """
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]  # DVC may be adding files meanwhile
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", "") or str(error)
        raise UserError(f"{folder}: git {arguments[0]} failed ({reason.strip().splitlines()[-1]})") from error
    return done.stdout.strip()
