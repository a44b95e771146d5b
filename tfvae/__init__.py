# SPDX-License-Identifier: Apache-2.0
"""Variational autoencoders in TensorFlow.

The most common names are exported here, the others by the subpackages.
"""

import lazy_loader
import wrapt

__version__ = "0.2.0"

# The names are those of __init__.pyi; their modules load on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# Saved models load after no more than `import tfvae`.
wrapt.register_post_import_hook(
    "tfvae.registration:register_stand_ins", "keras"
)
