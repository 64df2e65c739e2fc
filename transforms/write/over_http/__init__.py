"""What destinations over HTTP share: a kept connection, its credential, and how a reply is read."""
