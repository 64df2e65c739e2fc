"""Kafka: an idempotent producer."""
