"""Zeiss's CZI files, read with pylibCZIrw."""
