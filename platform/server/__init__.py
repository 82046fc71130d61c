"""What runs in the ServerApp: a run is put together, driven, recorded and resumed."""
