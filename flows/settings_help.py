"""Commands whose `--help` ends with what `--set` can name: each setting, its default and what it does."""

import importlib
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.core import TyperCommand


def listing(**settings: str) -> type[TyperCommand]:
    """A command class for typer that lists the fields of pydantic models, each given as title="module:Model", or as
    title="module:Model prefix." where `--set` wants a prefix. They are imported when help is asked for."""

    class Listing(TyperCommand):
        def format_help(self, context, formatter) -> None:
            super().format_help(context, formatter)
            for title, place in settings.items():
                where, _, prefix = place.partition(" ")
                module, _, name = where.partition(":")
                show(title.replace("_", " "), rows(getattr(importlib.import_module(module), name), prefix))

    return Listing


def rows(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str]]:
    """Name, default and description of each field, the model's own before those that it inherits."""
    found = []
    for name in [*model.__annotations__, *(name for name in model.model_fields if name not in model.__annotations__)]:
        field = model.model_fields[name]
        choices = " | ".join(map(str, get_args(field.annotation))) if get_origin(field.annotation) is Literal else ""
        says = f"{choices}. {field.description or ''}" if choices else field.description or ""
        found.append((prefix + name, _shown(field.get_default(call_default_factory=True)), says))
    return found


def _shown(default: Any) -> str:
    if default is None or default is PydanticUndefined:
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float):
        return f"{default:g}"
    return "[" + ", ".join(map(_shown, default)) + "]" if isinstance(default, list | tuple) else str(default)


def show(title: str, lines: list[tuple[str, str, str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", "default", "", title=f"--set NAME=VALUE: {title}", title_justify="left", expand=True,
                  box=box.ROUNDED, border_style="dim", pad_edge=True)
    table.columns[0].no_wrap, table.columns[2].ratio = True, 1
    for line in lines:
        table.add_row(*map(escape, line))
    Console().print(table)
