# SPDX-License-Identifier: Apache-2.0
"""Report of the random-encoder study beside the thesis's tables."""
