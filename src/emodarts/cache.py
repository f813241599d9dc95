"""The cache folder: generated corpora and stored features, all of which can be made again."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache_folder() -> Path:
    """``$EMODARTS_CACHE``, else ``emodarts`` in the user's cache folder."""
    if own := os.environ.get("EMODARTS_CACHE"):
        return Path(own)
    user = os.environ.get("XDG_CACHE_HOME")
    return (Path(user) if user else Path.home() / ".cache") / "emodarts"
