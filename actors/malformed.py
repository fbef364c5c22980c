"""An answer that cannot be used, and whose prompts' it was."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from configs.errors import DependencyError, TeacherFailedError
from configs.wire import Prompt


class MalformedAnswerError(DependencyError):
    """A server answered with what cannot be used; asked again it may do better."""

    def __init__(self, message: str, requests: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.requests = requests
        """Positions, in the batch that was asked, of those that never got a usable answer."""

    def among(self, positions: Sequence[int]) -> "MalformedAnswerError":
        """Return the same error for the batch of which only ``positions`` were asked."""
        return MalformedAnswerError(str(self), tuple(positions[n] for n in self.requests))


@contextmanager
def blamed_on(prompts: Sequence[Prompt]) -> Iterator[None]:
    """Name the prompts of a batch for which the teacher gave nothing usable.

    Raises TeacherFailedError in the place of a MalformedAnswerError that says which they are.
    """
    try:
        yield
    except MalformedAnswerError as error:
        if not error.requests:
            raise
        uids = tuple(prompts[position].uid for position in error.requests)
        raise TeacherFailedError(str(error), uids) from None
