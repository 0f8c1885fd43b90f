"""`vl2v-client` with one more hyper-parameter, declared in one place.

    python client_with_sharpness.py COMMANDS

COMMANDS is a JSON array of command lines, each an array of words: the first that fails is the last, and ends it.
"""

import json
import sys

from vl2v_client.config import training
from vl2v_client.config.training import option


class TrainingConfig(training.TrainingConfig):
    """How the student trains, with a made-up hyper-parameter."""

    sharpness: float = option(0.5, "Sharpness of nothing at all", unit="bits", gt=0)


training.TrainingConfig = TrainingConfig  # type: ignore[misc]  # before anything else imports it

if __name__ == "__main__":
    from vl2v_client.cli.app import run

    sys.exit(next(filter(None, map(run, json.loads(sys.argv[1]))), 0))
