"""The frozen backbone's features: computed once, or at each step where those are fewer or all are too many."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from support.client.student_factories import fresh_classifier, training_data
from vl2v_client.cache.feature_store import FeatureStore
from vl2v_client.student.loss.methods import TrainingConfig, vl2v_adip
from vl2v_client.student.train import feeds
from vl2v_client.student.train.feeds import FeatureFeed, open_feed
from vl2v_client.student.train.loop import train
from vl2v_client.student.train.training_data import BatchSource
from vl2v_client.student.train.training_run import TrainingRun

MANY = 6
"""Steps of 2 x 4 views that look at 48 views, as many as there are."""


@pytest.mark.parametrize("room", [0, 36])
@pytest.mark.parametrize("mixup", [0.0, 0.5])
def test_features_are_the_same_kept_or_not(monkeypatch: pytest.MonkeyPatch, mixup: float, room: int) -> None:
    config = TrainingConfig(align_steps=MANY, batch_size=4, mixup=mixup, device="cpu")
    run = TrainingRun(fresh_classifier(), training_data(), config)
    stage = vl2v_adip(config).stages[0]
    kept = open_feed(run, stage)
    monkeypatch.setattr(feeds, "FEATURE_BYTES", room * 32 * 4)
    again = open_feed(run, stage)
    run.classifier.student.train()
    for step in range(2):
        held, seen = kept.load(step), again.load(step)
        looked_at = 8 if mixup == 0 else 16
        assert len(held.inputs) == 0 < len(seen.inputs)
        assert (len(seen.inputs) == looked_at) == (room == 0)
        torch.testing.assert_close(again.outputs(seen), kept.outputs(held))
        assert not run.classifier.student.backbone.training  # as when its features are computed once
    torch.testing.assert_close(again.validation_outputs(), kept.validation_outputs())


@pytest.mark.parametrize(("steps", "features"), [(MANY - 1, 0), (MANY, 48)])
def test_no_more_views_pass_through_a_frozen_backbone_than_the_steps_look_at(steps: int, features: int) -> None:
    config = TrainingConfig(align_steps=steps, batch_size=4, device="cpu")
    run = TrainingRun(fresh_classifier(), training_data(), config)
    seen: list[int] = []
    open_feed(run, vl2v_adip(config).stages[0], lambda _phase, _done, total, *_extras: seen.append(total))
    assert set(seen) == {features + len(run.data.validation)}


def test_a_stage_whose_features_are_not_kept_trains_its_projection_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "FEATURE_BYTES", 0)
    config = TrainingConfig(align_steps=3, distill_steps=1, batch_size=4, evaluate_every=1, device="cpu")
    method, classifier = vl2v_adip(config), fresh_classifier()
    before = {name: value.clone() for name, value in classifier.student.state_dict().items()}
    one = replace(method, stages=method.stages[:1])
    train(one, classifier, training_data(), config)
    after = classifier.student.state_dict()
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"projection"}


@pytest.mark.parametrize("room", [10, 2**20])
def test_a_closed_form_reads_the_kept_features_of_views_that_no_step_will_look_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, room: int
) -> None:
    monkeypatch.setattr(feeds, "FEATURE_BYTES", room * 32 * 2)
    data, store = training_data(), FeatureStore(tmp_path / "features.db")
    data = replace(data, train=replace(data.train, keys=[bytes([place]) for place in range(48)]), features=store)
    few = TrainingConfig(align="ridge", align_steps=MANY - 1, batch_size=4, evaluation_batch_size=7, device="cpu")
    seen: list[int] = []

    def features(config: TrainingConfig) -> torch.Tensor:
        run = TrainingRun(fresh_classifier(), data, config)
        run.classifier.student.backbone.register_forward_hook(lambda _part, given, _said: seen.append(len(given[0])))
        feed = open_feed(run, vl2v_adip(config).stages[0])
        assert isinstance(feed, FeatureFeed)
        seen.clear()
        pairs = list(feed.pairs(BatchSource(run.data, run.classifier.head, 0.5)))
        return torch.cat([features for features, _ in pairs])

    first = features(few)
    assert sum(seen) == 48
    assert torch.equal(features(few), first)
    assert sum(seen) == 0
    assert torch.equal(features(few.replace(align_steps=MANY)), first), "as where the steps look at all of them"
    store.close()
