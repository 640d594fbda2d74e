"""The local room; see docs/architecture.md."""
