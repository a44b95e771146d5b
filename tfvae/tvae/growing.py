# SPDX-License-Identifier: Apache-2.0
"""Copies of a TVAE for more or fewer data points."""

from __future__ import annotations

from tfvae.tvae.model import TVAE


def with_num_data(model: TVAE, num_data: int) -> TVAE:
    """Returns a copy of a TVAE with states for another number of data points.

    Args:
      model: A TVAE; its parameters are copied, and the states of the data
        points that both models have.
      num_data: N of the copy; further data points have the initial states of a
        new model of that size.

    Returns:
      Another model; compile it before training.
    """
    grown = TVAE.from_config({**model.get_config(), "num_data": num_data})
    old, new = model.states, grown.states
    kept = {id(variable) for variable in (new.weights if new else ())}
    past = {id(variable) for variable in (old.weights if old else ())}
    sources = [one for one in model.weights if id(one) not in past]
    targets = [one for one in grown.weights if id(one) not in kept]
    for source, target in zip(sources, targets, strict=True):
        target.assign(source)
    if old is not None and new is not None:
        count = min(old.num_data, new.num_data)
        for source, target in zip(old.weights, new.weights, strict=True):
            target.value[:count].assign(source.value[:count])
    return grown
