"""The child's side of `model_process`: load, warm up, report, then answer batches until the parent is gone.

Its messages are small: batches and vectors lie in shared memory.
"""

import logging
import os
import queue
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vl2v_contract.identity import Modality
from vl2v_vendor.domain.encoder import ModelInfo, TokenBatch, VectorBatch
from vl2v_vendor.domain.errors import ModelLoadFailed, VendorError
from vl2v_vendor.engine.models.model_warm_up import (
    LanePace,
    LocalModel,
    first_line,
    is_out_of_memory,
    make_noise,
    release_memory,
    warm_up,
)
from vl2v_vendor.engine.process.busy_time import read_busy_seconds
from vl2v_vendor.engine.process.shared_slots import SlotLayout, Slots, Work, map_memory
from vl2v_vendor.engine.process.watchdog import PERIOD_SECONDS

LoadModel: TypeAlias = Callable[[], LocalModel]
"""Loads the model in the child. Must be picklable: a module's function, a class, or a `functools.partial` of one."""

_FAILURES_BEFORE_PROBE: Final = 8
_SHORT: Final = 16
"""Tokens up to which lengths are alike: below that a forward pass costs about the same."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer:
    """From the child: the shape of the vectors in the batch's slot, or why there are none."""

    id: int
    shape: tuple[int, ...] | None
    error: str | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """From the child, four times a second: it is alive, and has computed or waited for a processor for so long."""

    busy_seconds: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """From the child, first: the warm model, its pace by lane, and how the shared memory is cut."""

    info: ModelInfo
    pace: Mapping[Modality, LanePace]
    layout: SlotLayout


Message: TypeAlias = Answer | Heartbeat | Loaded | ModelLoadFailed
"""Whatever the child sends. The error is its first and last message, and says why the model cannot be loaded."""
_Send: TypeAlias = Callable[[Message], None]


def serve_model(
    load: LoadModel, batch_items: Mapping[Modality, int] | None, connection: Connection, memory: Connection
) -> None:
    """Run the model process: the target of `multiprocessing.Process`.

    Ctrl-C in a terminal reaches the whole process group, and so does the SIGTERM of systemd, supervisord or `timeout`.
    The parent alone decides when the child ends: it has requests to finish, which need the model.
    The shared memory is sized here, once the model is known.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Model libraries log their progress, retries and troubles; the parent says what an operator needs to know.
    logging.disable(logging.ERROR)
    # Before torch is imported. OpenMP's threads spin for milliseconds while they wait for each other, and take the
    # processors from the decoding threads that they wait for in turn: on two busy cores a batch took two to four times
    # as long. About 0.1 ms bridges the gaps within a forward pass; none at all cost an eighth of an image's time.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    send = partial(_send, connection, threading.Lock())
    inbox: queue.SimpleQueue[Work] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True, name="model-inbox").start()
    try:
        model = load()
        pace = warm_up(model, batch_items)
        info, images, texts = model.info, pace["image"].batch_items, pace["text"].batch_items
        input_bytes = max(images * 3 * info.image_size**2, texts * 8 * info.context_length)
        layout = SlotLayout(input_bytes, output_bytes=max(images, texts) * 4 * info.embedding_dim)
        slots = Slots(map_memory(memory, layout.size_bytes), layout)
    except Exception as error:
        # Everything that can go wrong here is for the operator, who sees it in the parent.
        send(ModelLoadFailed(str(error) if isinstance(error, VendorError) else f"{type(error).__name__}: {error}"))
        return
    send(Loaded(info, pace, layout))
    threading.Thread(target=_send_heartbeats, args=(send,), daemon=True, name="model-heartbeat").start()
    _answer_all(model, slots, inbox, send)


def answer(model: LocalModel, slots: Slots, work: Work) -> Answer:
    """Encode the batch in a slot and leave its vectors there.

    Raises:
        Exception: The device is lost; see `has_lost_device`. Any other error is in the answer.
    """
    if slots.abandoned[work.slot]:
        return Answer(work.id, None, "nobody waits for this batch")
    try:
        vectors = _encode(model, work.lane, slots.input(work))
        slots.output(work.slot, vectors.shape)[...] = vectors
        return Answer(work.id, vectors.shape, None)
    except Exception as error:
        if has_lost_device(error):
            raise
        # One batch's failure must not end the process that serves all others.
        text, needs_memory = first_line(error), is_out_of_memory(error)
    if needs_memory:
        release_memory()  # only now: until here the exception held the failed batch's tensors
    return Answer(work.id, None, text)


def has_lost_device(error: BaseException) -> bool:
    """Return whether the device fails every batch from now on, until the process ends.

    So it is after an illegal access, a failed assertion in a kernel or a memory fault of the GPU. It is not so when
    memory is short, which cuBLAS says in words of its own.
    """
    text = str(error)
    if is_out_of_memory(error) or "ALLOC_FAILED" in text:
        return False
    accelerator_error = getattr(sys.modules.get("torch"), "AcceleratorError", ())  # older versions of torch have none
    return isinstance(error, accelerator_error) or (isinstance(error, RuntimeError) and "CUDA error" in text)


def encode_in_buckets(encode: Callable[[TokenBatch], VectorBatch], tokens: TokenBatch) -> VectorBatch:
    """Encode texts of mixed lengths, none of them padded to more than twice its length or 16.

    Args:
        encode: `[n, l]` token ids, padded with 0, to `[n, D]`.
        tokens: `[N, L]` token ids, padded with 0.

    Returns:
        `[N, D]`, in the order of `tokens`.
    """
    buckets = list(_buckets(tokens))
    parts = np.concatenate([encode(np.ascontiguousarray(tokens[rows, :length])) for rows, length in buckets])
    vectors = np.empty_like(parts)
    vectors[np.concatenate([rows for rows, _ in buckets])] = parts
    return vectors


def _buckets(tokens: TokenBatch) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Return the rows of each bucket and its longest length, from the longest bucket to the shortest."""
    lengths = np.maximum((np.arange(1, tokens.shape[1] + 1) * (tokens != 0)).max(axis=1), 1)  # [N], without padding
    rows = np.arange(len(lengths))
    while len(rows):
        longest = int(lengths[rows].max())
        is_alike = lengths[rows] > (longest // 2 if longest > _SHORT else 0)
        yield rows[is_alike], longest
        rows = rows[~is_alike]


def _answer_all(model: LocalModel, slots: Slots, inbox: queue.SimpleQueue[Work], send: _Send) -> None:
    """Answer batches until the model is broken; then end at once, so that the parent starts another process.

    When single items fail in a row, the model is given what it encoded at warm-up. It is broken if that fails too.
    So whatever a customer sends, and however often, no item ends the process by failing.
    """
    failures: Counter[Modality] = Counter()
    while True:
        work = inbox.get()
        try:
            reply = answer(model, slots, work)
            failures[work.lane] += work.shape[0] == 1
            if reply.error is None:
                failures[work.lane] = 0
            if failures[work.lane] >= _FAILURES_BEFORE_PROBE:
                failures[work.lane] = 0
                _probe(model, work.lane)
        except Exception as error:
            # Whatever it is: only another process can help, and those who wait are told once this one is gone.
            _log.critical("the model process ends, since its model is broken: %s", first_line(error))
            os._exit(1)
        send(reply)


def _probe(model: LocalModel, lane: Modality) -> None:
    info, is_text = model.info, lane == "text"
    try:
        _encode(model, lane, np.ones((1, info.context_length), np.int64) if is_text else make_noise(info, 1))
    except Exception as error:
        # Models fail in many ways; that memory is short may be another process's doing, and pass.
        if not is_out_of_memory(error):
            raise


def _encode(model: LocalModel, lane: Modality, batch: NDArray[Any]) -> VectorBatch:
    return encode_in_buckets(model.encode_tokens, batch) if lane == "text" else model.encode_images(batch)


def _send(connection: Connection, lock: threading.Lock, message: Message) -> None:
    """Send a message to the parent; two threads do."""
    with lock:
        connection.send(message)


def _receive(connection: Connection, inbox: queue.SimpleQueue[Work]) -> None:
    """Fetch the next batch while the model computes; leave at once when the parent's end is closed or killed."""
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _send_heartbeats(send: _Send) -> None:
    """Show the parent that this process is alive, whatever the model does."""
    try:
        while True:
            send(Heartbeat(read_busy_seconds()))
            time.sleep(PERIOD_SECONDS)
    except OSError:
        os._exit(0)
