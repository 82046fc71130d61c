"""What travels between server and nodes, as Flower records."""
