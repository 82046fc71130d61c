"""Updates that come after their round has closed: what is in flight, and how much of it counts when it arrives."""
