# SPDX-License-Identifier: Apache-2.0
"""Report of weighted retraining, compared with the published curves."""
