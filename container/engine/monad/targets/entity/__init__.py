"""Older import location of `Events` and `Attributes`."""

from monad.targets.attributes import Attributes
from monad.targets.events import Events

__all__ = ["Attributes", "Events"]
