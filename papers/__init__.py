# SPDX-License-Identifier: Apache-2.0
"""Published tables and the reports beside them; part of a clone only."""
