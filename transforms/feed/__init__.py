"""Reading the feed: connection, frames, journal, restriction."""
