"""What destinations over HTTP share: connections, exchanges, credentials, what a status means."""
