"""Service specifications: parsing, validation, defaults, the normalised text."""
