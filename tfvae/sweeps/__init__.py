# SPDX-License-Identifier: Apache-2.0
"""Studies: grids of configurations, run in a pool, compared in a report."""
