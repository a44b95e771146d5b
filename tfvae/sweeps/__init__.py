# SPDX-License-Identifier: Apache-2.0
"""Sweeps over grids of configurations, run in parallel, and their reports."""
