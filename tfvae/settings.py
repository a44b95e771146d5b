# SPDX-License-Identifier: Apache-2.0
"""Frozen dataclasses of settings that Keras serialises with a model."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import gin
import keras

_Class = TypeVar("_Class")


class Settings:
    """Mixin that gives a frozen dataclass Keras's `get_config` protocol."""

    def get_config(self) -> dict[str, Any]:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {
            field.name: keras.saving.serialize_keras_object(
                getattr(self, field.name)
            )
            for field in fields
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(
            **{
                name: keras.saving.deserialize_keras_object(value)
                for name, value in config.items()
            }
        )


@dataclass_transform(frozen_default=True)
def saved_settings(cls: type[_Class]) -> type[_Class]:
    """Decorator: a frozen dataclass, registered with gin and Keras."""
    cls = dataclasses.dataclass(frozen=True)(cls)
    cls = keras.saving.register_keras_serializable("tfvae")(cls)
    return gin.register(cls)
