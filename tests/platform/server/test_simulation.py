"""The process of a simulated run: how it starts Ray."""

import pytest

from slimfed.platform.server import simulation


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Gets an entry whenever what an attempt has started is ended; the processes of this test are not."""
    calls: list[str] = []
    monkeypatch.setattr(simulation, "end_descendants", lambda **_: calls.append("ended"))
    return calls


def test_a_ray_that_does_not_start_in_time_is_started_again(
    ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    def start() -> None:
        if not ended:
            raise Exception("The current node timed out during startup.")

    simulation._patiently(start)
    assert ended == ["ended"]
    assert "Ray did not start: The current node timed out during startup.; it is" in capsys.readouterr().err


def test_a_ray_that_never_starts_is_the_cause(ended: list[str]) -> None:
    def start() -> None:
        raise Exception("no memory")

    with pytest.raises(Exception, match="no memory"):
        simulation._patiently(start)
    assert len(ended) == simulation._STARTS - 1
