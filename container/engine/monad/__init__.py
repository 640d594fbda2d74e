"""An open implementation of the documented `monad` API.

It is independent of Synerise's product and shares no code with it; it has the same import
name because the documented scripts import it. It knows nothing of any orchestrator.
"""

__version__ = "0.1.0"
ENGINE_NAME = "monad-open-engine"
