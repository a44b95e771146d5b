# SPDX-License-Identifier: Apache-2.0
"""Pure functions of tensors and arrays: densities, bounds, random draws."""
