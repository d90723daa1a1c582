"""Random numbers that depend on what they are for, and not on the batch that they are drawn in.

A counter-based generator: every number is a hash of (seed, purpose, row, step, position). So a target
attacked alone and in company, whole or in chunks, on a CPU or a GPU, meets the same noise. The mixing
function is the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

import math
from collections import Counter

import torch
from torch import Tensor

from mibench.seeds import derive_seed

__all__ = ["Noise", "derive_seed", "hash_normal", "hash_uniform", "mix", "repeats"]

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as int64
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def mix(state: Tensor) -> Tensor:
    """Hash of each int64 of `state` (any shape), int64, with wrap-around arithmetic."""
    x = state + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX_1
    x = (x ^ _shift(x, 27)) * _MIX_2
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; SplitMix64 needs the logical shift
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def hash_uniform(keys: Tensor, count: int) -> Tensor:
    """Uniform numbers in (0, 1], float32, of shape (*keys.shape, count), one stream per int64 key."""
    positions = torch.arange(count, dtype=torch.int64, device=keys.device)
    bits = mix(mix(keys)[..., None] ^ mix(positions))
    # 24 bits fill a float32; the half step keeps 0 out, so that log() stays finite, and the last one is 1
    return ((_shift(bits, 40)).to(torch.float32) + 0.5) * 2.0**-24


def hash_normal(keys: Tensor, count: int) -> Tensor:
    """Standard normal numbers, float32, of shape (*keys.shape, count) (Box and Muller, 1958)."""
    half = (count + 1) // 2
    u = hash_uniform(keys, 2 * half)
    radius = torch.sqrt(-2.0 * torch.log(u[..., :half]))
    angle = 2.0 * math.pi * u[..., half:]
    return torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)[..., :count]


class Noise:
    """Random numbers for the rows of a batch of attack problems.

    Args:
        keys: (B,) int64, one stream key per row.
    """

    def __init__(self, keys: Tensor) -> None:
        self.keys = keys

    @classmethod
    def of_targets(cls, seed: int, targets: Tensor) -> Noise:
        """Streams keyed by (seed, label, how often the label stood before), for targets (B,) int64."""
        pairs = zip(targets.tolist(), repeats(targets).tolist())
        keys = [derive_seed(seed, label, before) for label, before in pairs]
        return cls(torch.tensor(keys, dtype=torch.int64))

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: slice | Tensor) -> Noise:
        """The same streams for some of the rows."""
        return Noise(self.keys[rows])

    def repeat(self, times: int) -> Noise:
        """Streams of (B * times) rows: each row `times` times in a row, each copy with its own stream."""
        copies = torch.arange(times, dtype=torch.int64)
        return Noise(mix(self.keys[:, None] ^ mix(copies)).flatten())

    def normal(self, purpose: str, *shape: int, step: int = 0) -> Tensor:
        """Standard normal noise (B, *shape), float32, on the CPU."""
        return hash_normal(self._stream(purpose, step), math.prod(shape)).view(-1, *shape)

    def uniform(self, purpose: str, *shape: int, step: int = 0) -> Tensor:
        """Uniform noise in (0, 1], (B, *shape), float32, on the CPU."""
        return hash_uniform(self._stream(purpose, step), math.prod(shape)).view(-1, *shape)

    def integers(self, purpose: str, count: int, *shape: int) -> Tensor:
        """Whole numbers from 0 to count - 1, each as likely, (B, *shape), int64, on the CPU."""
        share = 1 - self.uniform(purpose, *shape)
        # the least uniform number is 2^-25, and 1 - 2^-25 rounds to 1
        return (share * count).long().clamp(max=count - 1)

    def _stream(self, purpose: str, step: int) -> Tensor:
        return mix(self.keys ^ derive_seed(purpose, step))


def repeats(targets: Tensor) -> Tensor:
    """How often each of targets (B,) int64 stood before it: (B,), int64, on the CPU.

    >>> repeats(torch.tensor([7, 3, 7, 7]))
    tensor([0, 0, 1, 2])
    """
    seen: Counter[int] = Counter()
    counts = []
    for label in targets.tolist():
        counts.append(seen[label])
        seen[label] += 1
    return torch.tensor(counts, dtype=torch.int64)
