# SPDX-License-Identifier: Apache-2.0
"""Tasks: one module each, with a function of its name that makes it."""
