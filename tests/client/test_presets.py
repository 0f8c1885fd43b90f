"""The presets: the published protocol to the letter, its faults switchable, and ours untouched by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from support.client.buying_bench import meet_vendor
from support.client.student_factories import TINY_VIT
from vl2v_client.api.client import VendorClient
from vl2v_client.cache.store import EmbeddingCache
from vl2v_client.config.presets import PUBLISHED_STUDENTS, is_domain_net, resolve
from vl2v_client.config.run import DataConfig, PurchaseConfig, RunConfig, StudentConfig
from vl2v_client.config.training import TrainingConfig, declared
from vl2v_client.core.errors import UsageError
from vl2v_client.runs.settings import IMAGENET_MEAN, IMAGENET_STD, RunSettings, choose_student, settle
from vl2v_client.student.loss.methods import online_queries, vl2v_adip

PACS = Path("data/PACS")


def resolved(
    preset: str, student: str, data: Path, *, purchase: PurchaseConfig | None = None, **named: Any
) -> RunConfig:
    training = TrainingConfig.model_validate({"preset": preset, **named})
    groups = {"data": DataConfig(root=data), "student": StudentConfig(name=student), "training": training}
    return resolve(RunConfig.model_validate(groups | {"purchase": purchase or PurchaseConfig()}))


def choose_training(preset: str, student: str, data: Path, **named: Any) -> TrainingConfig:
    return resolved(preset, student, data, **named).training


def student_of(preset: str, name: str, **named: Any) -> Any:
    return choose_student(StudentConfig.model_validate({"name": name, **named}), preset)


# Student: start of saving in each stage, SWAD's segments in the second, whether ImageNet's normalisation is a fault.
PUBLISHED = {
    "vit_base_patch16_224.augreg_in21k_ft_in1k": (1000, 100, "original", True),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": (100, 100, "cumulative", True),
    "deit_small_distilled_patch16_224.fb_in1k": (100, 100, "cumulative", False),
    "resnet50.tv_in1k": (100, 1000, "cumulative", False),
}


@pytest.mark.parametrize("student", PUBLISHED)
def test_the_paper_s_protocol_to_the_letter(student: str) -> None:
    align_from, distill_from, segments, _ = PUBLISHED[student]
    config = choose_training("paper", student, PACS)
    align, distill = vl2v_adip(config).stages
    assert (align.steps, distill.steps, align.learning_rate, distill.learning_rate) == (5001, 5001, 5e-5, 5e-5)
    assert (align.final_weights, align.best_from, align.segments) == ("best", align_from, "cumulative")
    assert (distill.final_weights, distill.best_from, distill.segments) == ("swad", distill_from, segments)
    assert align.best_of_equals == distill.best_of_equals == "last"
    assert (config.batch_size, config.weight_decay, config.image_weight, config.betas) == (32, 0, 0.5, (0.9, 0.999))
    assert (config.converge, config.tolerance, config.tolerance_ratio, config.evaluate_every) == (3, 6, 0.3, 200)
    assert config.bfloat16 is False
    assert online_queries(config, source_domains=3) == 960_192
    assert config.probe is False


def test_domain_net_takes_longer_by_its_name() -> None:
    for name in ("DomainNet", "domain_net"):
        config = choose_training("paper", "resnet50", Path("data") / name)
        assert (config.align_steps, config.distill_steps, config.evaluate_every) == (15_001, 15_001, 1_000)
        assert online_queries(config, source_domains=5) == 4_800_320
    assert not is_domain_net(PACS)
    assert choose_training("default", "resnet50", Path("DomainNet")) == choose_training("default", "resnet50", PACS)


@pytest.mark.parametrize("student", PUBLISHED)
def test_names_mean_the_weights_of_then_and_the_normalisation_fault_is_switchable(student: str) -> None:
    name, _, tag = student.partition(".")
    is_fault = PUBLISHED[student][3]
    as_published, own = student_of("paper", name), student_of("paper", name, own_normalisation=True)
    assert as_published.tag == own.tag == tag
    assert (as_published.input.mean, as_published.input.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert ((own.input.mean, own.input.std) != (IMAGENET_MEAN, IMAGENET_STD)) == is_fault
    assert student_of("default", student) == own
    assert student_of("default", student, own_normalisation=False) == as_published


def test_a_local_file_of_weights_takes_the_place_of_the_tag(tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(b"opened later")
    spec = student_of("paper", "vit_small_patch16_224", weights=weights)
    assert (spec.tag, spec.weights, spec.input.mean) == (None, weights, IMAGENET_MEAN)


def test_options_go_before_the_preset() -> None:
    config = choose_training("paper", "resnet50", PACS, align_steps=7, image_weight=0.3)
    assert (config.align_steps, config.distill_steps, config.batch_size, config.image_weight) == (7, 5001, 32, 0.3)


def test_the_default_is_as_it_was() -> None:
    tiny = choose_training("default", "tiny", PACS)
    assert (tiny.align_steps, tiny.distill_steps, tiny.batch_size, tiny.evaluate_every) == (100, 800, 11, 50)
    assert (tiny.align_learning_rate, tiny.distill_learning_rate, tiny.final_weights) == (1e-2, 3e-4, "swad")
    align, distill = vl2v_adip(tiny).stages
    assert (align.best_from, align.segments, distill.best_from, distill.segments) == (0, "original", 0, "original")


def test_other_students_have_a_schedule_and_half_of_their_blocks_frozen() -> None:
    def settled(student: str, **training: Any) -> TrainingConfig:
        groups = {"data": {"root": PACS}, "student": {"name": student}, "training": training}
        return settle(RunConfig.model_validate(groups)).training

    default, thorough = settled("tf_efficientnet_lite0.in1k"), settled("tf_efficientnet_lite0.in1k", preset="thorough")
    assert (default.align, default.schedule, default.warmup, default.final_weights) == ("ridge", "cosine", 0.05, "ema")
    assert (default.distill_steps, thorough.distill_steps) == (400, 1_600)
    assert (default.freeze_until, thorough.freeze_until) == (4, 4)  # stem and three of seven stages
    assert [one.probe for one in (default, thorough, settled("tiny"))] == [True] * 3
    assert settled("resnet50.a1_in1k").freeze_until == 2
    assert settled("resnet50.a1_in1k", freeze_until=0).freeze_until == 0
    assert settled("tiny").freeze_until == 0
    online = {"preset": "default", "student": "resnet50", "data": PACS, "purchase": PurchaseConfig(online=True)}
    assert resolved(**online).training.align == "adam"
    assert thorough.replace(preset="default", distill_steps=400) == default


@pytest.mark.parametrize(
    ("weight", "student", "training", "views"),
    [
        (16, "resnet50", {}, 4),
        (16, "resnet50", {"preset": "thorough"}, 1),
        (16, "resnet50", {"method": "erm"}, 4),  # so that a sweep of it may get a method that has use for them
        (3, "resnet50", {"soft_label_weight": 3}, 4),
        (0, "resnet50", {"soft_label_weight": 0}, 4),
        (0, "resnet50", {}, 0),
        (0, "resnet50", {"preset": "paper"}, 4),
        (0, "tiny", {}, 4),
    ],
)
def test_a_student_of_timm_has_soft_labels_where_answers_about_images_are_bought(
    weight: float, student: str, training: dict[str, Any], views: int
) -> None:
    found = resolved(training.pop("preset", "default"), student, PACS, purchase=PurchaseConfig(views=views), **training)
    assert found.training.soft_label_weight == weight


def test_a_run_that_goes_on_keeps_its_recipe_and_schedule_unless_others_are_named() -> None:
    before = {"preset": "default", "view_recipe": "styles", "distill_steps": 7, "align_steps": 5}
    before |= {"soft_label_weight": 0.0}
    config = RunConfig.model_validate(
        {"data": {"root": PACS}, "student": {"name": "resnet50"}, "training": {"align_steps": 6}}
    )
    found = resolve(config, before)
    assert (found.purchase.view_recipe, found.training.distill_steps, found.training.align_steps) == ("styles", 7, 6)
    assert found.training.soft_label_weight == 0  # as what version 0.1 began has it
    assert resolve(config, {**before, "preset": "paper"}) == resolve(config)


def test_a_student_that_was_not_published_and_a_preset_that_is_none_are_refused() -> None:
    for student in ("tiny", "convnext_tiny"):
        with pytest.raises(UsageError, match=f"no student '{student}': its preset is for vit_base_patch16_224"):
            choose_training("paper", student, PACS)
    with pytest.raises(ValidationError, match="Input should be 'default', 'thorough' or 'paper'"):
        choose_training("ours", "resnet50", PACS)
    assert set(PUBLISHED) == {f"{name}.{known.tag}" for name, known in PUBLISHED_STUDENTS.items()}


def test_every_resolved_value_is_in_the_configuration(client: VendorClient, cache: EmbeddingCache) -> None:
    config = resolved("paper", "resnet50", PACS, method="kd", baselines=("erm",))
    settings = RunSettings(config, TINY_VIT)
    record = settings.to_json(meet_vendor(client, cache))
    training = record["training"]
    assert (training["preset"], training["method"], training["baselines"]) == ("paper", "kd", ["erm"])
    assert training.items() <= config.training.model_dump(mode="json").items()
    without = {name for name, info in TrainingConfig.model_fields.items() if not declared(info, "result")}
    assert set(TrainingConfig.model_fields) - set(training) == without | {"extend"}  # it is there in an extended run
    assert without == {"checkpoint_every", "device", "probe", "quick", "tensorboard", "workers"}
    (stage,) = record["stages"]
    assert (stage["image_weight"], stage["best_from"], stage["segments"]) == (0.9, 1000, "cumulative")
    assert record["erm_learning_rates"] == pytest.approx([5e-6, 15e-6, 5e-5, 15e-5, 5e-4])
    assert settings.choice.ask_images
    assert settings.with_method("erm", target_domain=None, seed=0).choice.ask_images is False


def test_the_tiny_student_trains_on_more_views_than_it_buys_and_no_other_does() -> None:
    def views(preset: str, train_views: int | None = None, **named: Any) -> tuple[int | None, str | None, int | None]:
        purchase = PurchaseConfig.model_validate(named)
        found = resolved(preset, "resnet50", PACS, purchase=purchase, train_views=train_views)
        return found.purchase.views, found.purchase.view_recipe, found.training.train_views

    assert views("default", views=4) == (4, "drawn", 4)
    assert views("default", views=0) == (0, "drawn", 0)
    assert views("default", 6, views=4, view_recipe="standard") == (4, "standard", 6)
    assert views("default", online=True) == (1, "drawn", 1)
    assert views("paper", views=4) == (4, "published", 4)
    with pytest.raises(UsageError, match=r"leave purchase\.views out"):
        views("default", views=4, online=True)
    tiny = resolved("default", "tiny", PACS)
    assert (tiny.purchase.views, tiny.purchase.view_recipe, tiny.training.train_views) == (4, "styles", 10)
