"""The one error class for mistakes a user can mend."""

LONGEST = 2000
"""Characters of a message: a file may hold a key of any length."""


class UserError(ValueError):
    """Bad input. The message is one line that names the culprit, what was found and what was wanted.

    What a terminal would not print, a line break or a change of writing direction in a key, is shown as its escape.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}")
