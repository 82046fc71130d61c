"""The Flower ServerApp: one run of one job."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve the run that the run configuration names; without a name a new run is made (plain ``flwr run .``)."""
    # Imported here: torch comes with it, and Flower starts Ray only when this module and the ClientApp's are loaded.
    from slimfed.platform.server.session import serve

    serve(grid, dict(context.run_config))
