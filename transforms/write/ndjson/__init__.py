"""What destinations of NDJSON files share: lines, names, compression."""
