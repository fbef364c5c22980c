"""Finds the prompt that kills: who was there at every death."""

from collections import Counter
from collections.abc import Sequence

from configs.wire import Prompt, Uid


class Suspects:
    """Counts deaths of parts by the prompts that they were working on."""

    def __init__(self, poison_after: int) -> None:
        self._poison_after = poison_after
        self._deaths: Counter[Uid] = Counter()

    def after_death(self, prompts: Sequence[Prompt]) -> tuple[list[list[Prompt]], list[Uid]]:
        """Book one death; returns the groups in which to ask again, and the uids to give up.

        The first time all ask again together: it may have been chance. Then one by one, so that
        the prompt that kills is alone when it is found guilty.
        """
        for prompt in prompts:
            self._deaths[prompt.uid] += 1
        if len(prompts) == 1 and self._deaths[prompts[0].uid] >= self._poison_after:
            return [], [prompts[0].uid]
        together = all(self._deaths[prompt.uid] == 1 for prompt in prompts)
        return ([list(prompts)] if together else [[prompt] for prompt in prompts]), []
