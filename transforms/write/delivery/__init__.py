"""Delivering to one destination: outbox, settling and threads, for clusters too; the driver by ticks."""
