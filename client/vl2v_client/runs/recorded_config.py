"""What is read of a finished run's configuration, which may be somebody else's."""

from __future__ import annotations

from pydantic import BaseModel, ValidationError

from vl2v_client.core.errors import RunError
from vl2v_client.runs.run_folder import CONFIG_FILE, RunFolder


class RecordedTeacher(BaseModel):
    """The model that a run learned from."""

    id: str
    ledger_id: str
    weights_sha: str


class RecordedData(BaseModel):
    """The data set that a run learned from, and the templates of its prompts."""

    root: str
    prompts: list[str]


class RecordedConfig(BaseModel):
    """The entries that an evaluation needs."""

    data: RecordedData
    teacher: RecordedTeacher


def recorded_config(folder: RunFolder) -> RecordedConfig:
    """Return the recorded configuration of a run.

    Raises:
        RunError: An entry is missing or has a wrong type.
    """
    try:
        return RecordedConfig.model_validate(folder.config)
    except ValidationError as error:
        entry = "/".join(map(str, error.errors(include_input=False)[0]["loc"]))
        raise RunError(
            f"{folder.path / CONFIG_FILE} has no right entry {entry!r}: put back a copy of it, or run again"
        ) from error
