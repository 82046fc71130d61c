"""Messages between server and nodes, as Flower records."""
