# SPDX-License-Identifier: Apache-2.0
"""Optimisation tasks: one module each, with a factory function of its name."""
