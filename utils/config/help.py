"""Every option as a line of --help, made from the schema."""

from collections.abc import Container
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from utils.config.schema import Command, Hyp


def help_text(script: str, *models: type[BaseModel]) -> str:
    """Every option with its default and meaning, made from the schema; those of other `models` stand first."""
    lines = [f"usage: python {script} [--key value | key=value ...]", ""]
    return "\n".join(lines + option_lines(*models, Command, Hyp))


def option_lines(*models: type[BaseModel], without: Container[str] = ()) -> list[str]:
    """One line for each key: what it means, the words that it allows, its default; of a key of two models the first."""
    lines = {}
    for name, field in ((name, field) for model in models for name, field in model.model_fields.items()):
        words = allowed_words(field)
        listed = f" [{' | '.join(words)}]" if words else ""
        line = f"  --{name.replace('_', '-'):<18} {field.description}{listed} (default: {field.default})"
        if name not in without:
            lines.setdefault(name, line)
    return list(lines.values())


def allowed_words(field: Any) -> list[str]:
    """The words that a key allows, where it allows a few only; those of a key that takes numbers or words, too."""
    parts = [field.annotation, *get_args(field.annotation)]
    return [str(word) for part in parts if get_origin(part) is Literal for word in get_args(part)]
