"""Sums over text on which layer shares and criteria are built: inputs of linear modules, angles of the stream."""
