"""Files: NDJSON on the local disk."""
