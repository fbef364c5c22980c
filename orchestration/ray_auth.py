"""Ray's token authentication, settled before `import ray`: its core reads these variables once."""

import os
import secrets
import sys

from configs.cluster import ClusterConfig


def settle_authentication(config: ClusterConfig) -> None:
    """Set RAY_AUTH_MODE, and for a Ray of our own a token that dies with it.

    Whoever reaches Ray's ports runs code, so a local Ray takes tokens unless the recipe or the
    environment says otherwise. A cluster's own setting is left as its environment has it.
    """
    if config.local:
        return
    assert "ray" not in sys.modules or os.environ.get("RAY_AUTH_MODE"), "ray was imported too early"
    starts_ray = config.joined(os.environ) is None
    if config.auth:
        os.environ["RAY_AUTH_MODE"] = config.auth
    elif starts_ray:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    given = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if starts_ray and os.environ["RAY_AUTH_MODE"] == "token" and not given:
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
