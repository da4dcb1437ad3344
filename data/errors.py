"""The one exception tree. Whatever a user can cause is a TapewireError; anything else is our bug.

The command line prints a TapewireError as one paragraph and exits with its `exit_code`; it shows no
traceback. A message says what was expected, what was found, where, and what to do.
"""


class TapewireError(Exception):
    """Base of every error a user can cause."""

    exit_code = 2


class ConfigError(TapewireError):
    """A wrong key, value, command or date, or a workspace that is not there."""


class InputError(TapewireError):
    """A file of prices or headlines that cannot be trusted; nothing of it was stored.

    `code` is the fault's in `data/quality/codes.py`, where it has one of its own there.
    """

    def __init__(self, message: str, code: str = "unreadable-file") -> None:
        super().__init__(message)
        self.code = code


class LakeError(TapewireError):
    """The lake lacks what a job needs, or a table in it cannot be read."""


class EncoderError(TapewireError):
    """A text encoder that cannot be had, or that does not match the stored embeddings."""


class ModelError(TapewireError):
    """A trained model that is missing, altered or unfit for what was asked."""


class WaitedError(TapewireError):
    """What a night needs could not be had in time: nothing was published, and the next start tries again."""

    exit_code = 4


class LockedError(TapewireError):
    """Another process is doing the same job in the same workspace."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later
