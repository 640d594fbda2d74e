"""Treemaps: the documented import location `monad.interpretability.treemap`."""

from typing import Any

from monad.config.support import not_built

__all__ = ["TreemapGenerator"]


class TreemapGenerator:
    """Draws attributions as treemaps. Not built: making one always raises."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        raise not_built(
            "monad.interpretability.treemap.TreemapGenerator is not built in this engine",
            "there are no attributions to draw",
            "Draw shares of your own, for instance with plotly's treemap",
        )
