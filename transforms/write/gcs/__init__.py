"""Google Cloud Storage: NDJSON objects in a bucket."""
