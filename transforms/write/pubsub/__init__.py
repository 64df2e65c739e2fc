"""Pub/Sub: publishing over gRPC."""
