"""Where dead letters are written, and read again."""
