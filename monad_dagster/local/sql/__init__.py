"""From SQL text to a handler: lexer, statements, the registry of handlers, dispatch."""
