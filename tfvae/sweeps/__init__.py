# SPDX-License-Identifier: Apache-2.0
"""Sweeps: grids of configurations, run by a pool of processes, and reports."""
