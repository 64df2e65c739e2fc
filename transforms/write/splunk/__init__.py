"""Splunk: HTTP Event Collector, with and without acknowledgement."""
