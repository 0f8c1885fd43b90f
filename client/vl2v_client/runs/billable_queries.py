"""Which of a run's queries a method reads, for its loss or to classify: those are its bill, and no others."""

from __future__ import annotations

from vl2v_client.config.training import TrainingConfig
from vl2v_client.planning.query_plan import PlannedRun
from vl2v_client.student.loss.methods import asks_about_images, asks_about_texts
from vl2v_client.student.loss.stages import Method


def billable_image_keys(method: Method, config: TrainingConfig, planned: PlannedRun) -> tuple[str, ...]:
    """Return the cache keys of the image queries that a method reads, each once."""
    return planned.plan.used_image_keys if asks_about_images(method, config) else ()


def billable_text_keys(method: Method, planned: PlannedRun) -> tuple[str, ...]:
    """Return the cache keys of the text queries that a method reads, in the plan's order."""
    return planned.plan.text_keys if asks_about_texts(method) else ()
