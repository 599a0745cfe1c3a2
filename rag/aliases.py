"""Tables of aliases in the settings: one table each, read strictly."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from indexes.errors import ChangeRequest

Spec = TypeVar("Spec")


def read_table(
    section: str,
    kind: type[Spec],
    name: str,
    table: Mapping[str, Any],
    useless: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Spec:
    """The spec in the table `[section.name]`; `useless` names fields that a provider has no use for.

    Raises ChangeRequest (`invalid_settings`) that names every field at fault.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        # As JSON, because strict validation of a dataclass takes no mapping.
        spec = TypeAdapter(kind).validate_json(json.dumps({**table, "name": name}, default=str))
    except ValidationError as error:
        faults = "; ".join(
            f"{fault['loc'][-1] if fault['loc'] else 'table'}: {fault['msg']}" for fault in error.errors()
        )
        raise _invalid(section, name, faults) from error
    provider = table.get("provider", "")
    named = sorted(set(useless.get(provider, ())) & table.keys())
    if named:
        raise _invalid(section, name, f"the provider {provider!r} has no use for {', '.join(named)}")
    return spec


def _invalid(section: str, name: str, faults: str) -> ChangeRequest:
    return ChangeRequest(
        f"The settings [{section}.{name}] are not valid: {faults}. Correct the file.",
        code="invalid_settings",
        param=f"{section}.{name}",
    )
