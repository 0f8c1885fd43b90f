"""More steps after a method's last stage: stages of their own, so that what was trained before stays as it is.

An extension begins with the weights that the stage before it left (SWAD's average, the moving average, the best or the
last, as `Stage.final_weights` says), with a new optimizer, and runs through warm-up and schedule anew. A cosine has
ended at 0 after its last step, and nothing goes on from there.
"""

from dataclasses import replace

from vl2v_client.config.training import TrainingConfig
from vl2v_client.student.loss.methods import Method

EXTENSION = "extend"
"""How the names of these stages begin."""


def extended(method: Method, config: TrainingConfig) -> Method:
    """Return a method with a further stage for each entry of `config.extend`, like its last but for the steps."""
    last = replace(method.stages[-1], closed_form=False, best_from=0)
    further = (
        replace(last, name=f"{EXTENSION}-{number}", steps=steps) for number, steps in enumerate(config.extend, start=1)
    )
    return replace(method, stages=(*method.stages, *further))
