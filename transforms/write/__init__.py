"""Writing to destinations: WriteTo, the contract, delivery by ticks and by timers, a folder a destination."""
