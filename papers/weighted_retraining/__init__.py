# SPDX-License-Identifier: Apache-2.0
"""Report of weighted retraining beside the published curves."""
