"""BigQuery: Storage Write API and insertAll."""
