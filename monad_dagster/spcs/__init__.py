"""The spcs room; see docs/architecture.md."""
