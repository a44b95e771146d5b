# SPDX-License-Identifier: Apache-2.0
"""Benchmarks of speed, memory and time to quality; in clones only."""
