"""Batches of a cohort: every device's rows are there, in order, and an attention mask only where there is padding."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from slimfed.clients.training.cohort.collate import join, stack
from slimfed.clients.training.losses import IGNORED

PAD = 9
sizes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=4)  # rows, length


def batch(rows: int, length: int) -> dict[str, torch.Tensor]:
    ids = torch.arange(rows * length).reshape(rows, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.zeros(rows, dtype=torch.int64)}


@settings(max_examples=40, deadline=None)
@given(sizes=sizes, multiple=st.sampled_from([1, 8]))
def test_rows_are_padded_and_only_then_masked(sizes: list[tuple[int, int]], multiple: int) -> None:
    batches = [batch(rows, length) for rows, length in sizes]
    whole = {name: tensor[0] for name, tensor in stack([batches], PAD, multiple).items()}
    most = max(rows for rows, _ in sizes)
    longest = -(-max(length for _, length in sizes) // multiple) * multiple
    ids = whole["input_ids"].reshape(len(sizes), most, longest)
    mask = whole.get("attention_mask", torch.ones_like(whole["input_ids"])).reshape(ids.shape)
    assert ("attention_mask" in whole) == any(length < longest for _, length in sizes)
    for n, (rows, length) in enumerate(sizes):
        assert torch.equal(ids[n, :rows, :length], batches[n]["input_ids"])
        assert (ids[n, :, length:] == PAD).all()
        assert mask[n, :, :length].all()
        assert not mask[n, :, length:].any()
        assert (whole["labels"].reshape(len(sizes), most)[n, rows:] == IGNORED).all()


def test_devices_with_fewer_rows_repeat_their_first() -> None:
    joined = join([batch(3, 2), batch(1, 2)], PAD)
    assert torch.equal(joined["input_ids"][3:], joined["input_ids"][3].expand(3, 2))
