"""The JSON schema of the configuration, for editors: it knows the keys and types, `load_config` all the rest."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from safetyheads.config.load import Config


class _Schema(GenerateJsonSchema):
    """As the loader wants it: a key is left out rather than null, and names have to be good names."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        made = super().default_schema(schema)
        return {key: _without_none(value) for key, value in made.items() if key != "default" or value is not None}

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        return super().dict_schema(schema) | {"additionalProperties": False}

    def get_title_from_name(self, name: str) -> str:
        return name


def _without_none(value: Any) -> Any:
    """A default without the keys that are left out."""
    if isinstance(value, dict):
        return {key: _without_none(entry) for key, entry in value.items() if entry is not None}
    return value


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration file."""
    schema = _on_one_line(Config.model_json_schema(schema_generator=_Schema))
    return {"$schema": _Schema.schema_dialect, **schema, "title": "SafetyHeads configuration"}


def _on_one_line(value: Any) -> Any:
    """A schema whose descriptions, which come from docstrings, have no line ends."""
    if isinstance(value, dict):
        return {
            key: " ".join(entry.split()) if key == "description" and isinstance(entry, str) else _on_one_line(entry)
            for key, entry in value.items()
        }
    return [_on_one_line(entry) for entry in value] if isinstance(value, list) else value
