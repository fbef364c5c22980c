"""What a check-up finds: a verdict, what was seen, and what to do where it is not well."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from configs.errors import ConfigError, DataError, DpkdError

Verdict = Literal["ok", "warning", "problem"]
"""``warning``: a run starts, and may go badly. ``problem``: it cannot end well."""

GIB = 1 << 30

_ADVICE = {
    DataError: "mend the file, or name another with data.train, data.validation or data.corpus",
    ConfigError: "change that setting",
}
"""For the errors that say only what is wrong."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check."""

    name: str
    """What was checked, in a word or two."""
    verdict: Verdict
    detail: str
    """What was seen."""
    fix: str = ""
    """What to do; empty only where all is well."""

    def __post_init__(self) -> None:
        """Check that whatever is not well comes with advice."""
        assert (self.verdict == "ok") == (not self.fix), self


Check = Callable[[], Finding]
"""Looks at one thing. What it raises is ``guarded``'s to deal with."""


def guarded(name: str, check: Check) -> Finding:
    """Return what ``check`` finds; what it cannot do is a finding too, and ends no other check."""
    try:
        finding = check()
    except DpkdError as error:
        return of_error(name, error)
    except (ImportError, RuntimeError) as error:
        # RuntimeError: what torch and transformers raise where their builds do not match.
        return Finding(
            name,
            "problem",
            f"an installed package does not work ({_one_line(error)})",
            "make the environment anew with `make setup`",
        )
    except OSError as error:
        return Finding(
            name,
            "warning",
            f"could not be checked ({_one_line(error)})",
            "see whether this user may read what is named here",
        )
    assert finding.name == name, (finding, name)
    return finding


def of_error(name: str, error: DpkdError) -> Finding:
    """Return the problem that an error for the user describes: its sentence, cut at the advice."""
    seen, _, advice = str(error).rpartition("; ")
    if seen:
        return Finding(name, "problem", seen, advice)
    return Finding(name, "problem", str(error), _ADVICE.get(type(error), "provide what is missing"))


def worst(findings: list[Finding]) -> Verdict:
    """Return the gravest verdict."""
    order: tuple[Verdict, ...] = ("ok", "warning", "problem")
    verdicts: list[Verdict] = ["ok", *(finding.verdict for finding in findings)]
    return max(verdicts, key=order.index)


def gib(size: float) -> str:
    """Return a number of bytes as text."""
    return f"{size / GIB:.1f} GiB" if size < 100 * GIB else f"{size / GIB:.0f} GiB"


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
