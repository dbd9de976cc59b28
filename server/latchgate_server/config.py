"""The settings: one frozen object, from the environment and `latchgate.toml`, validated once at start.

Every setting is an environment variable with the prefix LATCHGATE_, and a key in latchgate.toml without it, in lower
case. The environment wins. LATCHGATE_CONFIG names another file than ./latchgate.toml.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from latchgate_server.core.credential_sources import CredentialSources
from latchgate_server.core.http_denials import HttpDenials
from latchgate_server.core.http_names import header_name
from latchgate_server.core.key_format import is_prefix
from latchgate_server.core.replication import LONGEST_LEASE, SHORTEST_CLIENT_LEASE, SHORTEST_LEASE
from latchgate_server.hashing import PEPPER_BYTES, Peppers

CONFIG_FILE = "latchgate.toml"
SMALLEST_MEMORY = 256 * 2**20
"""For all workers together; one that does nothing yet has some 80 MiB."""
_PREFIX = "LATCHGATE_"
_CONFIG = _PREFIX + "CONFIG"
# What is no setting of the server: where that file is, and what client commands read.
_OTHER_VARIABLES = frozenset(
    _PREFIX + name
    for name in (
        "CONFIG",
        *("ADMIN_ADDRESS", "VERIFY_ADDRESS"),
        *("ADMIN_KEY", "ADMIN_KEY_FILE", "VERIFY_KEY", "VERIFY_KEY_FILE", "METRICS_ADDRESS"),
        *("CA", "SERVER_NAME", "CLIENT_CERT", "CLIENT_KEY"),
    )
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_SIZES = {"MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(MiB|GiB)")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class SettingsProblem(Exception):
    """The settings do not parse; the message has a clear line for each mistake and never a secret."""


def _seconds(value: object) -> object:
    """Seconds from text such as `3s`, `500ms`, `5m`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError("a duration such as 3s, 500ms or 5m is expected")
    return float(match[1]) * _UNITS[match[2]]


def _bytes(value: object) -> object:
    """Bytes from text such as `512MiB`; none from an empty one."""
    if not isinstance(value, str):
        return value
    if not value:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError("an amount of memory such as 512MiB or 2GiB is expected")
    return int(float(match[1]) * _SIZES[match[2]])


def _file(value: object) -> object:
    """A file's name; an empty one is none, and not the current folder."""
    return None if value == "" else value


_WRITTEN: Mapping[object, Mapping[str, float]] = {_seconds: _UNITS, _bytes: _SIZES}
"""In which units values are written, by what reads them."""

Seconds = Annotated[float, BeforeValidator(_seconds)]
File = Annotated[Path | None, BeforeValidator(_file)]


class Settings(BaseSettings):
    """What an operator can set. Only the names here are known; a misspelt key in the file is an error."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    verify_listen: str = "127.0.0.1:50051"
    admin_listen: str = "127.0.0.1:50052"
    metrics_listen: str = "127.0.0.1:9464"
    database_url: SecretStr = SecretStr("")
    pepper: SecretStr = SecretStr("")
    pepper_file: File = None
    tls_cert: File = None
    tls_key: File = None
    tls_client_ca: File = None
    tls_connection_age: Annotated[Seconds, Field(ge=0, le=600)] = 0.0
    verify_auth: Literal["off", "key", "mtls"] = "off"
    admin_client_cert: Literal["off", "require"] = "off"
    transport: Literal["auto", "native", "grpcio"] = "auto"
    lease: Annotated[Seconds, Field(ge=SHORTEST_LEASE, le=LONGEST_LEASE)] = 3.0
    client_lease: Annotated[Seconds, Field(ge=SHORTEST_CLIENT_LEASE, le=LONGEST_LEASE)] = 1.0
    on_database_loss: Literal["deny", "serve_cached"] = "deny"
    max_staleness: Annotated[Seconds, Field(gt=0, le=86_400)] = 300.0
    cache_size: Annotated[int, Field(ge=1, le=100_000_000)] = 200_000
    credential_sources: str = "x-api-key,api-key,authorization"
    client_ip_header: str = ""
    denial_detail: Literal["full", "uniform"] = "full"
    denials: dict[str, Any] = {}
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    memory_limit: Annotated[Annotated[int, Field(ge=SMALLEST_MEMORY)] | None, BeforeValidator(_bytes)] = None
    drain_delay: Annotated[Seconds, Field(ge=0, le=600)] = 0.0
    limit_store: SecretStr = SecretStr("memory")
    limit_store_timeout: Annotated[Seconds, Field(ge=0.01, le=10)] = 0.15
    on_limit_store_loss: Literal["share", "deny"] = "share"
    key_prefix: str = "lg"
    usage_retention: Annotated[Seconds, Field(ge=31 * 86_400)] = 400 * 86_400.0
    uses_retention: Annotated[Seconds, Field(ge=86_400)] = 90 * 86_400.0
    access_log: Annotated[float, Field(ge=0, le=1)] = 0.0
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "console", "json"] = "auto"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Given values first, then the environment, then the file."""
        file = TomlConfigSettingsSource(settings_cls, _config_file())
        return init_settings, env_settings, file

    @field_validator("verify_listen", "admin_listen", "metrics_listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        if not value or value.startswith("unix:") or (re.fullmatch(r".+:\d{1,5}", value) and _has_port(value)):
            return value
        raise ValueError("HOST:PORT or unix:PATH is expected")

    @field_validator("database_url")
    @classmethod
    def _check_database_url(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if url and not _is_database_url(url):
            raise ValueError(
                "an address such as postgresql://user:password@host:5432/latchgate is expected; what is no letter or "
                "digit in the password stands as %XX"
            )
        return value

    @field_validator("limit_store")
    @classmethod
    def _check_limit_store(cls, value: SecretStr) -> SecretStr:
        if not re.fullmatch(r"memory|(redis|rediss|valkey|valkeys|unix)://\S+", value.get_secret_value()):
            raise ValueError("memory, or an address such as valkey://HOST:6379/0 is expected")
        return value

    @field_validator("key_prefix")
    @classmethod
    def _check_prefix(cls, value: str) -> str:
        if not is_prefix(value):
            raise ValueError("a letter, then up to 31 of a-z, 0-9 and '_' is expected")
        return value

    @field_validator("credential_sources")
    @classmethod
    def _check_sources(cls, value: str) -> str:
        CredentialSources.parse(value)
        return value

    @field_validator("client_ip_header")
    @classmethod
    def _check_header(cls, value: str) -> str:
        name = header_name(value)
        if value and name is None:
            raise ValueError("the name of a header such as x-client-ip is expected")
        return name or ""

    @field_validator("denials")
    @classmethod
    def _check_denials(cls, value: dict[str, Any]) -> dict[str, Any]:
        HttpDenials(value)
        return value

    def http_denials(self) -> HttpDenials:
        """What Envoy's clients are told of each denial."""
        return HttpDenials(self.denials, uniform=self.denial_detail == "uniform")

    @model_validator(mode="after")
    def _check_listeners(self) -> Settings:
        if not self.verify_listen or not self.admin_listen:
            raise ValueError("LATCHGATE_VERIFY_LISTEN and LATCHGATE_ADMIN_LISTEN cannot be empty")
        return self

    @model_validator(mode="after")
    def _check_tls(self) -> Settings:
        problems = list(_tls_problems(self))
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def asks_for_client_certificates(self) -> bool:
        """Whether a port lets only those in who have a certificate of tls_client_ca's."""
        return self.verify_auth == "mtls" or self.admin_client_cert == "require"

    def require_local_listeners(self) -> None:
        """Raise SettingsProblem where a listener would carry keys in plaintext beyond this machine."""
        if self.tls_cert is not None:
            return
        for name, address in (("VERIFY", self.verify_listen), ("ADMIN", self.admin_listen)):
            if not _is_local(address):
                raise SettingsProblem(
                    f"LATCHGATE_{name}_LISTEN={address} is not loopback: keys would cross the network in plaintext; "
                    "set LATCHGATE_TLS_CERT and LATCHGATE_TLS_KEY, or put a TLS proxy or mesh in front and say "
                    "`serve --insecure` to allow it"
                )

    @property
    def shared_limit_store(self) -> str | None:
        """The address of the store that shares rate limits, or None where each process counts for itself."""
        address = self.limit_store.get_secret_value()
        return None if address == "memory" else address

    def require_database_url(self) -> str:
        """The database's address. Raises SettingsProblem where none is set."""
        url = self.database_url.get_secret_value()
        if not url:
            raise SettingsProblem("LATCHGATE_DATABASE_URL is not set, for example postgresql://user@host/latchgate")
        return url

    def require_peppers(self) -> Peppers:
        """The peppers, newest first. Raises SettingsProblem where there is none or one is malformed."""
        text = self.pepper.get_secret_value()
        if not text and self.pepper_file is not None:
            try:
                text = self.pepper_file.read_text(encoding="ascii")
            except OSError as error:
                raise SettingsProblem(
                    f"LATCHGATE_PEPPER_FILE {self.pepper_file} cannot be read: {error.strerror}"
                ) from None
            except UnicodeDecodeError:
                raise SettingsProblem(f"LATCHGATE_PEPPER_FILE {self.pepper_file} is not in base64") from None
        secrets = [_pepper(part) for part in re.split(r"[,\s]+", text) if part]
        if not secrets:
            raise SettingsProblem(
                "no pepper: set LATCHGATE_PEPPER or LATCHGATE_PEPPER_FILE; "
                f"`head -c {PEPPER_BYTES} /dev/urandom | base64` makes one"
            )
        return Peppers(secrets)


def _tls_problems(settings: Settings) -> Iterator[str]:
    """What cannot be meant of the settings that say who may ask; a line for each."""
    given = {"CERT": settings.tls_cert, "KEY": settings.tls_key, "CLIENT_CA": settings.tls_client_ca}
    missing = [f"LATCHGATE_TLS_{name}" for name, file in given.items() if file is None]
    if (settings.tls_cert is None) != (settings.tls_key is None):
        has, has_not = ("CERT", "KEY") if settings.tls_key is None else ("KEY", "CERT")
        yield f"LATCHGATE_TLS_{has} is set without LATCHGATE_TLS_{has_not}: TLS needs both"
    if settings.transport == "native" and (settings.tls_cert or settings.tls_key):
        yield (
            "LATCHGATE_TRANSPORT=native has no TLS: set LATCHGATE_TRANSPORT=auto, which takes grpcio where "
            "LATCHGATE_TLS_CERT is set, or leave LATCHGATE_TLS_CERT and LATCHGATE_TLS_KEY out"
        )
    for name, asks in (
        ("LATCHGATE_VERIFY_AUTH=mtls", settings.verify_auth == "mtls"),
        ("LATCHGATE_ADMIN_CLIENT_CERT=require", settings.admin_client_cert == "require"),
    ):
        if asks and missing:
            yield f"{name} needs {', '.join(missing)}; LATCHGATE_TLS_CLIENT_CA is who signs the callers' certificates"
    if settings.tls_client_ca and not settings.asks_for_client_certificates:
        # Who set it believes that strangers are kept out.
        yield (
            "LATCHGATE_TLS_CLIENT_CA is set, but no port asks callers for a certificate: set "
            "LATCHGATE_VERIFY_AUTH=mtls, LATCHGATE_ADMIN_CLIENT_CERT=require or both"
        )


def _is_database_url(text: str) -> bool:
    """Whether the driver can make sense of it. Its own complaint may quote the password."""
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("postgresql", "postgres") and all(map(_has_port, url.netloc.rpartition("@")[2].split(",")))


def _has_port(address: str) -> bool:
    """Whether the port of `HOST:PORT` is one; none is as good."""
    port = re.sub(r"^\[.*\]", "", address).partition(":")[2]
    return not port or (port.isdecimal() and int(port) < 65_536)


def _is_local(address: str) -> bool:
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _pepper(text: str) -> bytes:
    try:
        secret = base64.b64decode(text, validate=True)
    except binascii.Error:
        secret = b""
    if len(secret) < PEPPER_BYTES:
        raise SettingsProblem(f"a pepper is malformed: {PEPPER_BYTES} bytes or more in base64 are expected")
    return secret


def load_settings(**given: Any) -> Settings:
    """The settings of this process.

    given: values that win over environment and file, by the field's name.
    Raises SettingsProblem, whose message names each setting that does not parse. One that is not known is no slip to
    pass over: it may be a protection that somebody relies on.
    """
    _refuse_unknown(os.environ)
    if os.environ.get(_CONFIG) and not _config_file().is_file():
        # The settings that somebody wrote down must not be left out for a slip of the pen.
        raise SettingsProblem(f"{_CONFIG}: there is no file {_config_file()}")
    try:
        return Settings(**given)
    except ValidationError as error:
        lines = [_told(problem["loc"], _in_our_words(problem)) for problem in error.errors(include_input=False)]
        raise SettingsProblem("\n".join(lines)) from None
    except ValueError as error:
        raise SettingsProblem(f"{_config_file()}: {error}") from None


def _config_file() -> Path:
    """The file of settings, which need not exist where nobody named it."""
    return Path(os.environ.get(_CONFIG) or CONFIG_FILE)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = {_PREFIX + name.upper() for name in Settings.model_fields} | _OTHER_VARIABLES
    unknown = [name for name, value in environment.items() if name.startswith(_PREFIX) and value and name not in known]
    if unknown:
        raise SettingsProblem("\n".join(f"{name} is no setting of this version" for name in sorted(unknown)))


def _in_our_words(problem: ErrorDetails) -> str:
    """What pydantic says of a value, with its bounds in the unit that the setting is written in."""
    if problem["type"] == "extra_forbidden":
        return f"this is no setting of this version; {_config_file()} has it"
    bound = next((value for value in problem.get("ctx", {}).values() if isinstance(value, int | float)), None)
    field = Settings.model_fields[str(problem["loc"][0])] if problem["loc"] else None
    if not bound or field is None:
        return problem["msg"]
    units = next((units for read in field.metadata if (units := _WRITTEN.get(getattr(read, "func", None)))), {})
    fitting = [unit for unit, size in units.items() if bound >= size]
    if not fitting:
        return problem["msg"]
    unit = max(fitting, key=units.__getitem__)
    return f"{problem['msg'].rpartition(' ')[0]} {bound / units[unit]:g}{unit}"


def _told(location: tuple[int | str, ...], message: str) -> str:
    message = message.removeprefix("Value error, ")
    if not location:
        return message  # about several settings, which it names itself
    return f"{_PREFIX}{'_'.join(map(str, location)).upper()}: {message}"
