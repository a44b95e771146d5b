# SPDX-License-Identifier: Apache-2.0
"""Runs configured by gin: train, denoise, evaluate, export, optimise."""
