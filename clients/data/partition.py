"""Division of the training split among the devices, through the partitioners of flwr-datasets."""

import heapq
import logging
import warnings

import datasets
import numpy as np
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    GroupedNaturalIdPartitioner,
    Partitioner,
    ShardPartitioner,
    SizePartitioner,
)

from slimfed.clients.data.text import TextData
from slimfed.clients.errors import InputError
from slimfed.clients.seeds import derive
from slimfed.clients.spec import PartitionSpec

_log = logging.getLogger(__name__)


def partition(data: TextData, spec: PartitionSpec, devices: int, seed: int) -> list[np.ndarray]:
    """Rows of ``data.train`` for each device: int64, ascending; every row goes to exactly one device, none is empty.

    * ``iid``: a random division into parts of equal size (they differ by one row at most). * ``dirichlet``: for every
    class, shares drawn from Dirichlet(alpha). Small alphas leave some devices without any row; such a device gets one
    row of the largest one. * ``shards``: rows sorted by class are divided into ``shards_per_device`` shards for each
    device, assigned at random. Rows that do not fill a shard go to devices that have their class. * ``natural``: a
    device has all rows of one owner, or of several if there are more owners than devices.

    Raises :class:`InputError` if there are more devices than examples, shards or owners, or no classes to divide by.
    """
    rows = len(data.train)
    if devices > rows:
        raise InputError(f"fleet.devices = {devices} is more than the {rows} training examples; give at most {rows}")
    rng = np.random.default_rng(derive(seed, "partition"))
    if spec.kind == "iid":
        parts = _iid(rows, devices, rng)
    elif spec.kind == "natural":
        parts = _natural(data, spec, devices, rng)
    elif data.train.label is None:
        raise InputError(
            f'data.partition.kind = "{spec.kind}" divides by class, which causal-lm has not; valid are iid and natural'
        )
    elif spec.kind == "dirichlet":
        parts = _dirichlet(data.train.label, spec.alpha, devices, rng)
    else:
        parts = _shards(data.train.label, spec.shards_per_device, devices, rng)
    return [np.sort(part) for part in parts]


def _iid(rows: int, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    # Equals IidPartitioner on shuffled rows, and is faster.
    sizes = [rows // devices + (index < rows % devices) for index in range(devices)]
    return _divide(SizePartitioner(sizes), {"row": rng.permutation(rows)})


def _dirichlet(labels: np.ndarray, alpha: float, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    partitioner = DirichletPartitioner(
        num_partitions=devices,
        partition_by="label",
        alpha=float(alpha),
        min_partition_size=0,
        shuffle=False,
        seed=int(rng.integers(2**31)),
    )
    parts = _divide(partitioner, {"row": np.arange(len(labels)), "label": labels})
    return _fill_empty(parts, rng)


def _fill_empty(parts: list[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Give every empty part one random row of the part that is then the largest."""
    empty = [index for index, part in enumerate(parts) if not len(part)]
    if empty:
        _log.info("%d of %d devices drew no example and get one of the largest device's", len(empty), len(parts))
    sizes = [(-len(part), index) for index, part in enumerate(parts)]
    heapq.heapify(sizes)  # heap with the largest part (of equals the first) on top, for thousands of empty parts
    for index in empty:
        _, largest = sizes[0]
        taken = int(rng.integers(len(parts[largest])))
        parts[index] = parts[largest][taken : taken + 1]
        parts[largest] = np.delete(parts[largest], taken)
        heapq.heapreplace(sizes, (-len(parts[largest]), largest))
    return parts


def _shards(labels: np.ndarray, each: int, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    rows, shards = len(labels), each * devices
    if shards > rows:
        raise InputError(
            f"data.partition.shards_per_device = {each} makes {shards} shards for {devices} devices, more than the "
            f"{rows} training examples; give at most {rows // devices}"
        )
    # The partitioner drops rows that fill no shard, always of the last class: choose these rows at random instead.
    left, dealt = np.split(rng.permutation(rows), [rows % shards])
    partitioner = ShardPartitioner(
        num_partitions=devices,
        partition_by="label",
        num_shards_per_partition=each,
        shuffle=False,
        seed=int(rng.integers(2**31)),
    )
    parts = _divide(partitioner, {"row": dealt, "label": labels[dealt]})
    return _deal(parts, left, labels)


def _deal(parts: list[np.ndarray], left: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Assign each leftover row to a device that has its class, in turn."""
    holders: dict[int, list[int]] = {}
    for index, part in enumerate(parts):
        for label in np.unique(labels[part]):
            holders.setdefault(int(label), []).append(index)
    extra: list[list[int]] = [[] for _ in parts]
    for count, row in enumerate(left):
        candidates = holders.get(int(labels[row]), range(len(parts)))
        extra[candidates[count % len(candidates)]].append(int(row))
    return [np.concatenate([part, np.array(more, dtype=np.int64)]) for part, more in zip(parts, extra, strict=True)]


def _natural(data: TextData, spec: PartitionSpec, devices: int, rng: np.random.Generator) -> list[np.ndarray]:
    owner = data.train.owner
    if owner is None:
        raise InputError(f'data.partition.column = "{spec.column}" was not loaded with the data')
    partitioner = GroupedNaturalIdPartitioner(partition_by="owner", group_size=1, sort_unique_ids=True)
    parts = _divide(partitioner, {"row": np.arange(len(owner)), "owner": list(owner)})
    if len(parts) < devices:
        raise InputError(
            f"fleet.devices = {devices} is more than the {len(parts)} owners in data.partition.column = "
            f'"{spec.column}"; give at most {len(parts)} devices'
        )
    if len(parts) == devices:
        return parts
    groups = np.array_split(rng.permutation(len(parts)), devices)
    return [np.concatenate([parts[owner] for owner in group]) for group in groups]


def _divide(partitioner: Partitioner, columns: dict[str, object]) -> list[np.ndarray]:
    """Values of the column ``row`` in every partition, int64."""
    partitioner.dataset = datasets.Dataset.from_dict(columns)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Specifying null_placement", FutureWarning)  # sorting, inside `datasets`
        partitioner.load_partition(0)
    # The partitioner's own index lists are read, since each call for a partition builds a `Dataset`, in a millisecond.
    chosen = partitioner._partition_id_to_indices
    rows = np.asarray(partitioner.dataset["row"][:], dtype=np.int64)
    return [rows[np.asarray(chosen[index], dtype=np.int64)] for index in range(partitioner.num_partitions)]
