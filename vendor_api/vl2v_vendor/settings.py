"""The vendor's settings: environment variables over a TOML file over defaults.

Every field can be given as `VL2V_VENDOR_` and its name in capitals, or in the TOML file that `VL2V_VENDOR_CONFIG`
names. Command line options of `vl2v-vendor` override both.
"""

import os
import re
from collections.abc import Collection
from dataclasses import fields
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from vl2v_contract.wire.embeddings import MAX_ITEMS
from vl2v_vendor.domain.encoder import MEBIBYTE, Limits
from vl2v_vendor.domain.errors import VendorError

CONFIG_VARIABLE = "VL2V_VENDOR_CONFIG"
ENV_PREFIX = "VL2V_VENDOR_"

Channels = tuple[float, float, float]
Deviation = Annotated[float, Field(gt=0)]


class SettingsError(VendorError):
    """A setting is missing, malformed or unknown; the message names it."""


class Settings(BaseSettings):
    """What every `vl2v-vendor` command acts by; immutable once loaded, and no secret shows in its `repr`.

    `docs/operating.md` says what each field is for, with its unit and what None stands for.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", protected_namespaces=(), env_ignore_empty=True
    )

    database_url: SecretStr | None = None
    data_dir: Path = Field(default_factory=lambda: default_data_dir())
    secrets_file: Path | None = None
    published_heads_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    model: str | None = None
    pretrained: str | None = None
    model_config_file: Path | None = None
    model_id: str | None = None
    encoder: Literal["open_clip", "hash"] = "open_clip"
    hash_embedding_dim: int = Field(default=64, ge=1)
    hash_image_size: int = Field(default=32, ge=1)
    device: str = "auto"
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = None
    int8_min_cosine: float = Field(default=0.99, ge=0, le=1)
    torch_compile: bool = False
    pixel_policy: Literal["safe", "reference"] = "safe"
    jpeg_draft: bool = False
    golden_file: Path | None = None
    model_threads: int | None = Field(default=None, ge=1)
    image_mean: Channels | None = None
    image_std: tuple[Deviation, Deviation, Deviation] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    image_price_micro: int = Field(default=100, ge=0)
    text_price_micro: int = Field(default=10, ge=0)
    currency: str = Field(default="EUR", pattern=r"^[A-Z]{3}$")
    retention_days: int = Field(default=30, ge=0, le=36_500)
    recompute_items_per_minute: int = Field(default=1000, ge=1)
    max_items: Annotated[int, Field(ge=1, le=MAX_ITEMS)] = Limits.max_items
    max_item_bytes: Annotated[int, Field(ge=1)] = Limits.max_item_bytes
    max_request_bytes: Annotated[int, Field(ge=1)] = Limits.max_request_bytes
    max_pixels: Annotated[int, Field(ge=1)] = Limits.max_pixels
    max_text_bytes: Annotated[int, Field(ge=1)] = Limits.max_text_bytes
    max_decoding_bytes: int = Field(default=1024 * MEBIBYTE, ge=1)
    max_batch_items: int | None = Field(default=None, ge=1)
    max_queued_items: int = Field(default=2048, ge=1)
    max_queued_bytes: int = Field(default=512 * MEBIBYTE, ge=1)
    max_wait_seconds: float = Field(default=60.0, gt=0)
    max_load_seconds: float = Field(default=1800.0, gt=0)
    max_connections: int = Field(default=4096, ge=1)
    max_connections_per_address: int | None = Field(default=None, ge=1)
    head_seconds: float = Field(default=10.0, gt=0)
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    allowed_hosts: tuple[Annotated[str, Field(pattern=r"^([a-z0-9.-]+|\[[0-9a-f:.]+\])$")], ...] = ()
    metrics_token: SecretStr | None = Field(default=None, min_length=16)
    clock_bound_seconds: float = Field(default=60.0, ge=0)
    shutdown_seconds: int = Field(default=30, ge=0)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["plain", "json"] = "plain"

    @field_validator("data_dir", "secrets_file", "published_heads_file", "model_config_file", "golden_file")
    @classmethod
    def _at_home(cls, path: Path | None) -> Path | None:
        """Read `~` as a shell would: a file or a service manager does not."""
        return None if path is None else path.expanduser()

    @property
    def limits(self) -> Limits:
        """What one request may hold."""
        return Limits(**{field.name: getattr(self, field.name) for field in fields(Limits)})

    @property
    def database(self) -> str:
        """The database URL in force; it may hold a password, so it is never printed."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'vendor.db'}"

    @property
    def secrets_path(self) -> Path:
        """The secrets file in force."""
        return self.secrets_file or self.data_dir / "vendor-secrets.json"

    @property
    def golden_folder(self) -> Path:
        """Where the golden vectors of each model are kept, and the parity reports."""
        return self.data_dir / "golden"

    @property
    def published_heads_path(self) -> Path:
        """What servers have signed; beside the secrets, unless the settings name another place."""
        return self.published_heads_file or self.secrets_path.with_name("vendor-published-heads.json")

    @field_validator("max_queued_items")
    @classmethod
    def _hold_a_request(cls, value: int, info: Any) -> int:
        if value < info.data.get("max_items", 1):
            raise ValueError("must be at least max_items, or a full request could never be served")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        *_unused: PydanticBaseSettingsSource,
        **_unused_too: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the command line over the environment over the file."""
        config_file = os.environ.get(CONFIG_VARIABLE)
        file = (TomlConfigSettingsSource(settings_cls, toml_file=config_file),) if config_file else ()
        return (init_settings, env_settings, *file)


def load_settings(**overrides: Any) -> Settings:
    """Load the settings in force; `overrides` that are None do not override.

    Raises:
        SettingsError: Names the setting and what is wrong with it, and repeats no value.
    """
    config_file = os.environ.get(CONFIG_VARIABLE)
    if config_file and not Path(config_file).is_file():
        raise SettingsError(f"{CONFIG_VARIABLE} names {config_file}, which is not a file")
    settings = [f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields]
    for variable in os.environ:  # one that is nearly a setting; others may be somebody else's
        if variable.startswith(ENV_PREFIX) and variable not in settings:
            name = variable.removeprefix(ENV_PREFIX).lower()
            for near in get_close_matches(name, Settings.model_fields, n=1, cutoff=0.75):
                raise SettingsError(f"{variable} is no setting: {ENV_PREFIX}{near.upper()} is")
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as error:
        told = _FileFaults(config_file, given.keys())
        raise SettingsError("; ".join(map(told.describe, error.errors()))) from None
    except ValueError as error:
        raise SettingsError(f"the settings file {config_file} cannot be read as TOML: {error}") from None


class _FileFaults:
    """Says of a fault in which line of the settings file it is, if it is there; values are not repeated."""

    def __init__(self, path: str | None, given: Collection[str]) -> None:
        self._path, self._lines = path, {} if path is None else _lines_of(Path(path).read_text())
        self._given = given

    def describe(self, fault: ErrorDetails) -> str:
        """Return one fault as words, with the nearest setting for a name that is none."""
        name, *_ = parts = list(map(str, fault["loc"]))
        place = "" if self._is_overridden(name) else f"{self._path}, line {self._lines[name]}: "
        if fault["type"] != "extra_forbidden":
            return f"{place}{'.'.join(parts)}: {fault['msg']}"
        near = get_close_matches(name, Settings.model_fields, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; settings stand by their names, in no table"
        return f"{place}{name} is no setting{hint}"

    def _is_overridden(self, name: str) -> bool:
        return name not in self._lines or name in self._given or f"{ENV_PREFIX}{name.upper()}" in os.environ


def _lines_of(text: str) -> dict[str, int]:
    """Return the line, counted from 1, in which each key or table of a TOML file begins."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if begun := re.match(r"\s*\[*\s*[\"']?([\w-]+)", line):
            found.setdefault(begun[1], number)
    return found


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/vl2v`, or `~/.local/share/vl2v`."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "vl2v"
