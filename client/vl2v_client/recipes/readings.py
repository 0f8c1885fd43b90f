"""Which of a run's queries a method reads, for its loss or to classify: those are its bill, and no others."""

from __future__ import annotations

from vl2v_client.recipes.purchase import PlannedRun
from vl2v_client.student.methods import asks_about_images, asks_about_texts
from vl2v_client.student.stages import Method, TrainingConfig


def image_keys_read(method: Method, config: TrainingConfig, planned: PlannedRun) -> tuple[str, ...]:
    """Cache keys of the image queries that a method reads, each once."""
    return planned.plan.used_image_keys if asks_about_images(method, config) else ()


def text_keys_read(method: Method, config: TrainingConfig, planned: PlannedRun) -> tuple[str, ...]:
    """Cache keys of the text queries that a method reads; the texts of styles stand in for image queries."""
    keys, texts = planned.plan.text_keys, len(planned.queries.texts)
    if asks_about_images(method, config):
        return keys
    return keys[:texts] if asks_about_texts(method) else ()
