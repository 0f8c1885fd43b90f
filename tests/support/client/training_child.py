"""One process of a training run, for the tests that need several or kill one.

    python training_child.py FOLDER [RANK STEP]

Trains VL2V-ADiP on the toy problem, partly bought, and leaves `FOLDER/result-RANK.pt`: the final weights, the history,
and the weights and gradients of each stage's first step. The process of rank `RANK` dies in its optimizer step number
`STEP`, counted over both stages. `train_together` does the same in processes that nobody has to launch.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch

from support.client.student_factories import fresh_classifier, partly_bought_data
from support.forked import FORKSERVER, write_to
from support.vendor.live_parties import free_port
from vl2v_client.core.errors import ClientError
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_client.student.train.loop import train

CONFIG = TrainingConfig(
    align_steps=30,
    distill_steps=30,
    align_learning_rate=1e-2,
    distill_learning_rate=1e-3,
    batch_size=7,  # 14 views of two domains: three processes get 5, 5 and 4
    evaluate_every=6,
    checkpoint_every=5,
    device="cpu",
)

Result = dict[str, Any]


def train_together(folder: Path, count: int, seconds: float, **options: Any) -> list[Result]:
    """Train with these options in `count` processes, forked and not launched; returns what each has made, by rank."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    processes = [
        FORKSERVER.Process(target=_train_as, args=(folder, options, rank, count, port)) for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        for rank, process in enumerate(processes):
            process.join(seconds)
            assert process.exitcode == 0, _log(folder, rank).read_text()
    finally:
        for process in processes:
            process.kill()
            process.join()
    return [torch.load(folder / f"result-{rank}.pt", weights_only=True) for rank in range(count)]


def _train_as(folder: Path, options: dict[str, Any], rank: int, count: int, port: int) -> None:
    """Be one of the processes, as the environment says that `torchrun` makes for each.

    With a closed form, all but the first compute without oneDNN, so that they round as another processor may.
    """
    write_to(_log(folder, rank), _log(folder, rank))
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "CUDA_VISIBLE_DEVICES": ""}
    with torch.backends.mkldnn.flags(enabled=rank == 0 or options.get("align") != "ridge"):
        torch.save(train_watched(folder, **options), folder / f"result-{rank}.pt")


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.log"


def train_watched(folder: Path | None, dies_at: int | None = None, **options: Any) -> Result:
    """Trains; returns weights, history, and the first weights and gradients of each optimizer."""
    torch.set_num_threads(1)
    config = CONFIG.replace(**options)
    first: list[list[torch.Tensor]] = []
    gradients: list[list[torch.Tensor]] = []
    seen: set[int] = set()
    steps = 0
    whole_step = torch.optim.Adam.step

    def watched_step(optimizer: torch.optim.Adam, *arguments: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == dies_at:
            os._exit(9)
        if id(optimizer) not in seen:
            seen.add(id(optimizer))
            parameters = [value for group in optimizer.param_groups for value in group["params"]]
            first.append([value.detach().clone() for value in parameters])
            gradients.append([value.grad.clone() for value in parameters if value.grad is not None])
        return whole_step(optimizer, *arguments)

    torch.optim.Adam.step = watched_step  # type: ignore[method-assign, assignment]
    try:
        result = train(vl2v_adip(config), fresh_classifier(), partly_bought_data(), config, folder=folder)
    finally:
        torch.optim.Adam.step = whole_step  # type: ignore[method-assign]
    weights = dict(result.classifier.student.state_dict())
    return {
        "weights": weights,
        "first": first,
        "gradients": gradients,
        "history": list(result.history),
        "accuracy": result.validation.accuracy,
    }


def main(words: list[str]) -> int:
    folder, rank = Path(words[0]), os.environ.get("RANK", "0")
    dies_at = int(words[2]) if words[1:2] == [rank] else None
    try:
        result = train_watched(folder, dies_at)
    except ClientError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    torch.save(result, folder / f"result-{rank}.pt")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
