"""A zoo on disk: a folder of plain files."""
