"""An open engine behind the documented monad API; independent of Synerise and BaseModel."""

__version__ = "0.1.0"
