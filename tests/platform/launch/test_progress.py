"""Progress without a terminal, and figures as people say them."""

import pytest

from slimfed.platform.launch.progress import PlainLines, Snapshot


def _at(rounds_done: int, stopping: bool = False) -> Snapshot:
    accuracy = 0.5 if rounds_done else None
    return Snapshot(
        True, stopping, rounds_done, 3, accuracy, 0.25, 90.0, "#7 jetson-tx2 8.1 s" if rounds_done else None
    )


def test_plain_lines_say_each_round_once_and_keep_standard_output_clean(capsys: pytest.CaptureFixture[str]) -> None:
    with PlainLines() as display:
        for snapshot in [_at(0), _at(0), _at(1), _at(1), _at(2), _at(2, True), _at(2, True)]:
            display.show(snapshot)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "preparing",
        "round 1/3: accuracy 50.0%, sparsity 25.0%, virtual 1 min 30 s, slowest #7 jetson-tx2 8.1 s",
        "round 2/3: accuracy 50.0%, sparsity 25.0%, virtual 1 min 30 s, slowest #7 jetson-tx2 8.1 s",
        "stopping",
    ]
