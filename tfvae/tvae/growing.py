# SPDX-License-Identifier: Apache-2.0
"""TVAEs for data that grow."""

from __future__ import annotations

from tfvae.tvae.model import TVAE


def with_num_data(model: TVAE, num_data: int) -> TVAE:
    """Returns the same TVAE with states for more, or fewer, data points.

    Args:
      model: A TVAE, whose parameters are taken over, and with them the states
        of as many data points as both have.
      num_data: N of the one returned; data points that are new to it have
        the states that a fresh model of that size draws.

    Returns:
      Another model; it has to be compiled before it is trained.
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
