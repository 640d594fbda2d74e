"""The network: event embeddings, trunk, aggregates, heads."""
