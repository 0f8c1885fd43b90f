"""The child's side of `model_process`: load, warm up, report, then answer batches until the parent is gone."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_vendor.domain.encoder import ModelInfo, PixelBatch, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import VendorError

_WARM_UP_ITEMS = 4


class LocalModel(Protocol):
    """A model loaded in this process."""

    info: ModelInfo

    def encode_images(self, pixels: PixelBatch) -> VectorBatch:
        """`[N, S, S, 3]` uint8 to `[N, D]` float32, unit norm."""

    def encode_tokens(self, tokens: TokenBatch) -> VectorBatch:
        """`[N, L]` token ids to `[N, D]` float32, unit norm."""


LoadModel: TypeAlias = Callable[[], LocalModel]
"""Loads the model in the child. Must be picklable: a module's function, a class, or a `functools.partial` of one."""


@dataclass(frozen=True, slots=True)
class Work:
    """A batch for the child."""

    id: int
    lane: Literal["images", "tokens"]
    batch: NDArray[np.uint8] | NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a batch: vectors, or why there are none."""

    id: int
    vectors: VectorBatch | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Loaded:
    """The child's first message: the warm model, or why it could not be loaded."""

    info: ModelInfo | None
    error: str | None


def serve_model(load: LoadModel, connection: Connection) -> None:
    """Run the model process: the target of `multiprocessing.Process`.

    Ctrl-C in a terminal reaches the whole process group; the parent alone decides when the child ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Model libraries log their progress, retries and troubles; the parent says what an operator needs to know.
    logging.disable(logging.ERROR)
    inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True, name="model-inbox").start()
    try:
        model = load()
        _warm_up(model)
    except Exception as error:
        # Everything that can go wrong here is for the operator, who sees it in the parent.
        text = str(error) if isinstance(error, VendorError) else f"{type(error).__name__}: {error}"
        connection.send(Loaded(None, text))
        return
    connection.send(Loaded(model.info, None))
    while True:
        connection.send(_answer(model, inbox.get()))


def _receive(connection: Connection, inbox: queue.SimpleQueue[Work]) -> None:
    """Fetch the next batch while the model computes; leave at once when the parent's end is closed or killed."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _answer(model: LocalModel, work: Work) -> Answer:
    try:
        encode = model.encode_images if work.lane == "images" else model.encode_tokens
        vectors = encode(work.batch)  # type: ignore[arg-type]
    except Exception as error:
        # One batch's failure (out of memory, say) must not end the process that serves all others.
        return Answer(work.id, None, f"{type(error).__name__}: {error}".splitlines()[0][:300])
    return Answer(work.id, np.ascontiguousarray(vectors, dtype=np.float32), None)


def _warm_up(model: LocalModel) -> None:
    """One small batch through each tower, so that the first buyer does not wait for lazy initialisation."""
    size, length = model.info.image_size, model.info.context_length
    model.encode_images(np.zeros((_WARM_UP_ITEMS, size, size, 3), dtype=np.uint8))
    model.encode_tokens(np.ones((_WARM_UP_ITEMS, length), dtype=np.int64))
