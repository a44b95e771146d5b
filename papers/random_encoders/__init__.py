# SPDX-License-Identifier: Apache-2.0
"""Report of random encoders, compared with the tables of the thesis."""
