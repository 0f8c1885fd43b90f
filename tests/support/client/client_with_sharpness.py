"""`vl2v-client` with one more hyper-parameter, declared in one place: `python client_with_sharpness.py COMMAND ...`."""

from vl2v_client.config import training
from vl2v_client.config.training import option


class TrainingConfig(training.TrainingConfig):
    """How the student trains, with a made-up hyper-parameter."""

    sharpness: float = option(0.5, "Sharpness of nothing at all", unit="bits", gt=0)


training.TrainingConfig = TrainingConfig  # type: ignore[misc]  # before anything else imports it

if __name__ == "__main__":
    from vl2v_client.cli import main

    main()
