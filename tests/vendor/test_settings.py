"""Settings: command line over environment over file; errors that name the setting; no secret in sight."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from vl2v_vendor.bootstrap import model_spec
from vl2v_vendor.domain.errors import ModelLoadFailed
from vl2v_vendor.settings import Settings, SettingsError, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("VL2V_VENDOR_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config_file = tmp_path / "vendor.toml"
    config_file.write_text('port = 1\nhost = "file"\ncurrency = "CHF"\nimage_mean = [0.5, 0.5, 0.5]\n')
    monkeypatch.setenv("VL2V_VENDOR_CONFIG", str(config_file))
    monkeypatch.setenv("VL2V_VENDOR_PORT", "2")
    monkeypatch.setenv("VL2V_VENDOR_HOST", "environment")
    settings = load_settings(port=3, host=None)
    assert (settings.port, settings.host, settings.currency) == (3, "environment", "CHF")
    assert settings.image_mean == (0.5, 0.5, 0.5)


def test_the_defaults_are_one_folder(tmp_path: Path) -> None:
    settings = load_settings()
    assert settings.database == f"sqlite:///{tmp_path}/vl2v/vendor.db"
    assert settings.secrets_path == tmp_path / "vl2v" / "vendor-secrets.json"
    assert (settings.image_price_micro, settings.text_price_micro, settings.retention_days) == (100, 10, 30)
    assert settings.limits.max_pixels == 25_000_000


@pytest.mark.parametrize(
    ("name", "value", "fragment"),
    [
        ("port", "http", "port"),
        ("precision", "fp8", "fp32"),
        ("pixel_policy", "strange", "safe"),
        ("int8_min_cosine", "1.5", "int8_min_cosine"),
        ("currency", "euro", "currency"),
        ("image_std", "[0, 0.5, 0.5]", "image_std"),
        ("image_price_micro", "-1", "image_price_micro"),
        ("retention_days", "106800000", "retention_days"),
        ("max_queued_items", "5", "max_items"),
        ("head_seconds", "0", "head_seconds"),
        ("max_connections", "0", "max_connections"),
        ("trusted_proxies", '["10.0.0.1/8"]', "trusted_proxies"),
        ("trusted_proxies", "10.0.0.1", "trusted_proxies"),
    ],
)
def test_a_bad_value_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, fragment: str) -> None:
    monkeypatch.setenv(f"VL2V_VENDOR_{name.upper()}", value)
    with pytest.raises(SettingsError, match=fragment):
        load_settings()


@pytest.mark.parametrize(
    ("name", "setting"),
    [("DATABASE", "DATABASE_URL"), ("MODEL_CONFIG", "MODEL_CONFIG_FILE"), ("MAX_ITEM", "MAX_ITEMS")],
)
def test_a_variable_that_is_nearly_a_setting_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, setting: str
) -> None:
    monkeypatch.setenv(f"VL2V_VENDOR_{name}", "postgresql://elsewhere/ledger")
    with pytest.raises(SettingsError, match=f"VL2V_VENDOR_{name} is no setting: VL2V_VENDOR_{setting} is"):
        load_settings()


def test_a_tilde_in_a_file_is_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = Settings(data_dir="~/vl2v", secrets_file="~/keys.json", golden_file="~/golden.json")
    assert settings.data_dir == tmp_path / "vl2v"
    assert (settings.secrets_path, settings.golden_file) == (tmp_path / "keys.json", tmp_path / "golden.json")


def test_published_heads_lie_beside_the_secrets_or_where_the_settings_say(tmp_path: Path) -> None:
    secrets_file = tmp_path / "run" / "keys.json"
    assert Settings(secrets_file=secrets_file).published_heads_path == tmp_path / "run" / "vendor-published-heads.json"
    named = Settings(secrets_file=secrets_file, published_heads_file=tmp_path / "data" / "heads.json")
    assert (named.secrets_path, named.published_heads_path) == (secrets_file, tmp_path / "data" / "heads.json")


def test_a_proxy_is_an_address_or_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VL2V_VENDOR_TRUSTED_PROXIES", '["10.0.0.1", "2001:db8::/32"]')
    assert [str(network) for network in load_settings().trusted_proxies] == ["10.0.0.1/32", "2001:db8::/32"]


def test_variables_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "TRACEBACK", "SERVICE_HOST", "PORT_8000_TCP_ADDR"):
        monkeypatch.setenv(f"VL2V_VENDOR_{name}", "anything")
    assert load_settings().port == 8000


def test_every_setting_is_documented() -> None:
    docs = Path(__file__).parents[2] / "docs"
    pages = "".join(page.read_text() for page in (docs / "operating.md", *(docs / "operating").glob("*.md")))
    assert [name for name in Settings.model_fields if f"`{name}`" not in pages] == []


def test_a_bad_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VL2V_VENDOR_CONFIG", str(tmp_path / "nowhere.toml"))
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load_settings()
    for text, fragment in (
        ("colour = 1", r"vendor\.toml, line 1: colour is no setting; settings stand by their names"),
        ("port =\nhost = 1", r"vendor\.toml cannot be read as TOML: .*line 1"),
        ("port = 1\n\nimage_price_mikro = 5", r"vendor\.toml, line 3: .*did you mean image_price_micro\?"),
        ("[vendor]\nport = 1", r"vendor\.toml, line 1: vendor is no setting"),
        ("host = '::1'\nport = 'x'", r"vendor\.toml, line 2: port: "),
    ):
        config_file = tmp_path / "vendor.toml"
        config_file.write_text(text)
        monkeypatch.setenv("VL2V_VENDOR_CONFIG", str(config_file))
        with pytest.raises(SettingsError, match=fragment):
            load_settings()


def test_a_fault_outside_the_file_is_not_placed_in_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "vendor.toml").write_text("port = 1")
    monkeypatch.setenv("VL2V_VENDOR_CONFIG", str(tmp_path / "vendor.toml"))
    with pytest.raises(SettingsError, match=r"^port: "):
        load_settings(port=-1)
    monkeypatch.setenv("VL2V_VENDOR_PORT", "x")
    with pytest.raises(SettingsError, match=r"^port: "):
        load_settings()


def test_a_password_is_never_shown() -> None:
    settings = load_settings(database_url="postgresql://vendor:hunter2@db/vl2v")
    assert "hunter2" not in repr(settings)
    assert "hunter2" in settings.database
    with pytest.raises(Exception, match="frozen"):
        settings.port = 1  # type: ignore[misc]


def test_the_model_is_named_after_what_it_is(tmp_path: Path) -> None:
    checkpoint = tmp_path / "secret-folder" / "mine.pt"
    checkpoint.parent.mkdir()
    checkpoint.touch()
    names: dict[str, dict[str, Any]] = {
        "tiny-teacher": {},
        "ViT-B-16/openai": {"model": "ViT-B-16", "pretrained": "openai"},
        "ViT-B-16/mine": {"model": "ViT-B-16", "pretrained": str(checkpoint)},
        "clip": {"model_config_file": tmp_path / "clip.json", "pretrained": str(checkpoint)},
        "sold-as": {"model": "ViT-B-16", "pretrained": "openai", "model_id": "sold-as"},
    }
    assert [model_spec(Settings(**fields)).model_id for fields in names.values()] == list(names)
    with pytest.raises(ModelLoadFailed, match="not both"):
        model_spec(Settings(model="ViT-B-16", model_config_file=tmp_path / "clip.json"))


def test_pixels_are_treated_as_the_settings_say() -> None:
    assert model_spec(Settings()).policy == "safe-1"
    assert model_spec(Settings(jpeg_draft=True)).policy == "safe-1-draft"
    assert model_spec(Settings(pixel_policy="reference")).policy == "reference-1"
    with pytest.raises(ModelLoadFailed, match="jpeg_draft"):
        model_spec(Settings(pixel_policy="reference", jpeg_draft=True))
