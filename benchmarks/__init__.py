# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of speed, memory and time to quality; part of a clone only."""
