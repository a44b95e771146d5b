# SPDX-License-Identifier: Apache-2.0
"""Pure functions of tensors and arrays, shared by the subsystems."""
