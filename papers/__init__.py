# SPDX-License-Identifier: Apache-2.0
"""Published results, and reports that compare with them; in clones only."""
