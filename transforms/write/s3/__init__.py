"""S3: one conditional put a batch."""
