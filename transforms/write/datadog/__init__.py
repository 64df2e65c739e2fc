"""Datadog: the log intake."""
