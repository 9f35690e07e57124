"""The one error class for mistakes a user can mend."""


class UserError(ValueError):
    """Bad input. The message is one line that names the culprit, what was found and what was wanted."""
