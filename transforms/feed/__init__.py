"""Reading the feed: connections, frames, gaps; into a journal on one machine, into rings on workers."""
