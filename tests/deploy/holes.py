"""Manifests with holes: every place in one, emptied or filled with what does not belong there."""

from collections.abc import Callable, Container, Iterator
from typing import Any

WRONG: tuple[Any, ...] = (None, "", "x", -1, True, [], ["x"], {}, {"x": "x"})


def stumbles(
    manifest: Any, check: Callable[[], object], keys: Container[Any] | None = None
) -> list[str]:
    """Places that make ``check`` raise when they are missing or wrong; the manifest stays as it is.

    What is raised is what is looked for, whatever it is. ``keys``: those at which to look.
    """
    found = []
    places = [each for each in _places(manifest, "") if keys is None or each[2] in keys]
    for path, within, key in places:
        was = within[key]
        for wrong in WRONG:
            within[key] = wrong
            found += [f"{path}={wrong!r}: {said}" for said in _raised(check)]
        if isinstance(within, dict):
            del within[key]
            found += [f"{path} missing: {said}" for said in _raised(check)]
        within[key] = was
    return found


def _places(value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, each in pairs:
        yield f"{path}.{key}", value, key
        if isinstance(each, dict | list):
            yield from _places(each, f"{path}.{key}")


def _raised(check: Callable[[], object]) -> list[str]:
    try:
        check()
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        return [repr(error)]
    return []
