"""One destination within one process: batches, outbox, ledger and writer threads, driven by ticks."""
