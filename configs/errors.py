"""Errors meant for the user: one sentence each that says what, where, and what to do next.

Every class carries the process exit code that `python -m orchestration.run` ends with.
They are plain `ValueError`s that take what they were made of, so they survive pickling across
actors.
"""

from typing import Any


class DpkdError(ValueError):
    """Base of every error that a user can cause or mend; ``exit_code`` is the process's."""

    exit_code = 1


class ConfigError(DpkdError):
    """A recipe or an override is wrong: unknown key, wrong type, contradiction."""

    exit_code = 2


class DependencyError(DpkdError):
    """Something outside is missing: a package, a resource, a model folder, a cluster."""

    exit_code = 3


class TeacherFailedError(DependencyError):
    """The teacher gives nothing usable for some prompts, however often it is asked."""

    def __init__(self, message: str, uids: tuple[Any, ...]) -> None:
        super().__init__(message, uids)
        self.uids = uids
        """Uses of prompts, as `configs.wire.Uid`s: the others of their batch may be asked again."""

    def __str__(self) -> str:
        return self.args[0]


class DataError(DpkdError):
    """A data file is missing, empty or malformed; the message names file and line."""

    exit_code = 4


class NonFiniteError(DpkdError):
    """A loss, gradient or log-probability became NaN or infinite."""

    exit_code = 5


class WeightSyncError(DpkdError):
    """A weight push could not be proved: the sampler does not hold what the learner sent."""

    exit_code = 1


class CheckpointError(DpkdError):
    """A checkpoint could not be written; the one before is as it was."""

    exit_code = 3
