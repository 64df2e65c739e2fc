"""Writing to destinations: contract, outbox, delivery, one file a destination."""
