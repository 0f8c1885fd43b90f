"""The child's side of `model_process`: load, warm up, report, then answer batches until the parent is gone."""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Final, TypeAlias

import numpy as np

from vl2v_contract.identity import Modality
from vl2v_vendor.adapters.model_messages import INPUT_TYPES, Answer, Beat, Loaded, NotLoaded, Work
from vl2v_vendor.adapters.model_warm_up import LanePace, LocalModel, is_out_of_memory, release_memory, warm_up
from vl2v_vendor.adapters.shared_slots import SharedFile, SlotLayout, Slots
from vl2v_vendor.adapters.text_buckets import encode_in_buckets
from vl2v_vendor.adapters.watchdog import PERIOD_SECONDS
from vl2v_vendor.domain.encoder import ModelInfo
from vl2v_vendor.domain.errors import VendorError

LoadModel: TypeAlias = Callable[[], LocalModel]
"""Loads the model in the child. Must be picklable: a module's function, a class, or a `functools.partial` of one."""

__all__ = ["LoadModel", "LocalModel", "answer", "serve_model"]

_LONGEST_ERROR: Final = 300


def serve_model(
    load: LoadModel, batch_items: Mapping[Modality, int] | None, connection: Connection, memory: SharedFile
) -> None:
    """Run the model process: the target of `multiprocessing.Process`.

    Ctrl-C in a terminal reaches the whole process group; the parent alone decides when the child ends.

    Args:
        load: loads the model.
        batch_items: batch sizes that are decided already; None measures them.
        connection: to the parent.
        memory: sized here, once the model is known.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Model libraries log their progress, retries and troubles; the parent says what an operator needs to know.
    logging.disable(logging.ERROR)
    # Before torch is imported. OpenMP's threads spin for milliseconds while they wait for each other, and take the
    # processors from the decoding threads that they wait for in turn: on two busy cores a batch took two to four times
    # as long. About 0.1 ms bridges the gaps within a forward pass; none at all cost an eighth of an image's time.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    voice = _Voice(connection)
    inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True, name="model-inbox").start()
    try:
        model = load()
        pace = warm_up(model, batch_items)
        layout = _cut(model.info, pace)
        slots = Slots(memory.map(layout.size_bytes), layout)
    except Exception as error:
        # Everything that can go wrong here is for the operator, who sees it in the parent.
        voice.say(NotLoaded(str(error) if isinstance(error, VendorError) else f"{type(error).__name__}: {error}"))
        return
    voice.say(Loaded(model.info, pace, layout))
    threading.Thread(target=_beat, args=(voice,), daemon=True, name="model-beat").start()
    while True:
        voice.say(answer(model, slots, inbox.get()))


def answer(model: LocalModel, slots: Slots, work: Work) -> Answer:
    """Encode the batch in a slot and leave its vectors there."""
    if slots.is_abandoned(work.slot):
        return Answer(work.id, None, "nobody waits for this batch")
    try:
        batch = slots.input(work.slot, work.shape, INPUT_TYPES[work.lane])
        is_text = work.lane == "text"
        vectors = encode_in_buckets(model.encode_tokens, batch) if is_text else model.encode_images(batch)
        slots.output(work.slot, vectors.shape)[...] = vectors
        return Answer(work.id, vectors.shape, None)
    except Exception as error:
        # One batch's failure must not end the process that serves all others.
        text = f"{type(error).__name__}: {error}".splitlines()[0][:_LONGEST_ERROR]
        needs_memory = is_out_of_memory(error)
    if needs_memory:
        release_memory()  # only now: until here the exception held the failed batch's tensors
    return Answer(work.id, None, text)


class _Voice:
    """The child's end of the connection, for two threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def say(self, message: Answer | Beat | Loaded | NotLoaded) -> None:
        with self._lock:
            self._connection.send(message)


def _receive(connection: Connection, inbox: queue.SimpleQueue[Work]) -> None:
    """Fetch the next batch while the model computes; leave at once when the parent's end is closed or killed."""
    while True:
        try:
            inbox.put(connection.recv())
        except (EOFError, OSError):
            os._exit(0)


def _beat(voice: _Voice) -> None:
    """Tell the parent that this process is alive, whatever the model does."""
    while True:
        try:
            voice.say(Beat(time.process_time()))
        except OSError:
            os._exit(0)
        time.sleep(PERIOD_SECONDS)


def _cut(info: ModelInfo, pace: Mapping[Modality, LanePace]) -> SlotLayout:
    """Slots that hold the largest batch of either lane."""
    images, texts = pace["image"].batch_items, pace["text"].batch_items
    image_bytes = 3 * info.image_size**2
    text_bytes = np.dtype(np.int64).itemsize * info.context_length
    vector_bytes = np.dtype(np.float32).itemsize * info.embedding_dim
    return SlotLayout(
        input_bytes=max(images * image_bytes, texts * text_bytes), output_bytes=max(images, texts) * vector_bytes
    )
