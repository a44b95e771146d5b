# SPDX-License-Identifier: Apache-2.0
"""Runs that train, denoise, evaluate, export and optimise, set up by gin."""
