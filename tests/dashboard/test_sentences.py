"""What pages say in a sentence, against figures that were worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from slimfed.dashboard.figures import bars, curves, frames
from slimfed.dashboard.figures.style import short_names
from slimfed.dashboard.tabs import bandit, structure, timeline

ROWS = [
    {"rank": 4, "step": 2, "pulls": 3, "reward": 1.2},
    {"rank": 4, "step": 2, "pulls": 3, "reward": 1.8},
    {"rank": 8, "step": 4, "pulls": 4, "reward": 0.4},
    {"rank": 8, "step": 4, "pulls": 4, "reward": 0.4},
]


def boxes():
    rows = pd.DataFrame(ROWS).assign(groups=1)
    rows["squares"] = rows["reward"] ** 2 / rows["pulls"]
    sums = rows.groupby(["rank", "step"]).sum().reset_index().to_dict("records")
    return frames.with_intervals(frames.pulls_frame(sums, 40), sums)


def test_intervals_come_from_the_scatter_within_boxes():
    frame = boxes()
    # Means 0.4 and 0.6 around 0.5, three pulls each: 0.06 over four rows less two boxes.
    assert list(frame["interval"]) == pytest.approx([1.96 * np.sqrt(0.03 / 6), 1.96 * np.sqrt(0.03 / 8)])
    one = [ROWS[0] | {"groups": 1, "squares": 0.48}]
    alone = frames.with_intervals(frames.pulls_frame(one, 40), one)
    assert np.isnan(alone["interval"].iloc[0]), "one row tells nothing of the scatter"


def test_what_the_agent_has_settled_on():
    said = bandit.settled(boxes())
    assert said.startswith("**Pulled most**: step 8.8 to 11.2%, rank 8, 57% of 14 pulls.")
    assert "step 3.8 to 6.2%, rank 4, 0.500 ± 0.139, more than the one pulled most" in said


def steps():
    rows = [
        {"round": number, "profile": name, "least": mean - 5, "mean": mean, "most": mean + 5, "devices": count}
        for number in range(1, 6)
        for name, mean, count in (("jetson-tx2", 10.0, 3), ("jetson-agx", 40.0, 1))
    ]
    return frames.local_steps_frame(rows)


def test_local_steps_of_each_class():
    said = bandit.steps_in_words(steps())
    assert said == (
        "**In rounds 3 to 5 the agent gives** on average jetson\\-agx 40, jetson\\-tx2 10 local steps a round. They "
        "have hardly changed lately."
    )
    figure = curves.local_steps(steps())
    assert [trace.name for trace in figure.data if trace.name] == ["jetson-tx2", "jetson-agx"]


def timed():
    rows = [
        {"round": 3, "device": device, "profile": f"jetson-{kind}", "status": "done", "round_seconds": 10.0}
        | {"download_seconds": 1.0, "compute_seconds": compute, "upload_seconds": 1.0}
        for device, kind, compute in ((4, "tx2", 8.0), (2, "nx", 3.0))
    ]
    return frames.timeline_frame(rows)


def test_where_the_time_goes():
    assert timeline.where_time_goes(timed()) == (
        "Round 3 took 10.0 s: its last device was 4 (jetson\\-tx2), 80% of its time computing. The other devices below "
        "waited 50% of the round on average."
    )


def test_bars_of_the_timeline_name_their_class():
    assert list(bars.timeline(timed()).data[0].y[1]) == ["tx2 4", "nx 2"]
    assert short_names(["jetson-tx2", "pi-5"]) == {"jetson-tx2": "jetson-tx2", "pi-5": "pi-5"}
    assert short_names(["server"]) == {"server": "server"}


def test_what_is_left_of_the_layers():
    rows = [
        {"block": place, "layer": layer, "kind": kind, "units": units, "kept": kept, "shares": b"\xff"}
        for place, (layer, kind, units, kept) in enumerate(
            [(0, "attention", 4, 4.0), (0, "ffn", 100, 80.0), (1, "attention", 4, 2.0), (1, "ffn", 100, 40.0)]
        )
    ]
    assert structure.kept_in_words(frames.blocks_frame(rows)) == (
        "Devices keep on average 6 of 8 attention heads (75%) and 120 of 200 FFN channels (60%). Layer 1 has lost "
        "most, layer 0 least."
    )
