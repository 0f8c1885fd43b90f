"""Messages between the server and its model process. Small: batches and vectors lie in shared memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.engine.models.model_warm_up import LanePace
from vl2v_vendor.engine.process.shared_slots import SlotLayout

INPUT_TYPES: Final[Mapping[Modality, type[np.generic]]] = {"image": np.uint8, "text": np.int64}


@dataclass(frozen=True, slots=True)
class Work:
    """To the child: encode the batch that lies in a slot."""

    id: int
    slot: int
    lane: Modality
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """From the child: the shape of the vectors in the batch's slot, or why there are none."""

    id: int
    shape: tuple[int, ...] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """From the child, four times a second: it is alive, and has used so much processor time."""

    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """From the child, first: the warm model, its pace by lane, and how the shared memory is cut."""

    info: ModelInfo
    pace: Mapping[Modality, LanePace]
    layout: SlotLayout


@dataclass(frozen=True, slots=True)
class NotLoaded:
    """From the child, first and last: why the model cannot be loaded."""

    error: str
