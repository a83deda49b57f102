"""The one type of every fault that a user can mend: the scripts print its message and end with exit code 2."""


class UserError(ValueError):
    """A setting, file, folder or device that cannot be used; the message says which, why, and what would be right."""
