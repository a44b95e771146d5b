# SPDX-License-Identifier: Apache-2.0
"""Variational autoencoders in TensorFlow.

The most common names are exported here, the others by the subpackages.
"""

import lazy_loader
import wrapt

__version__ = "0.2.0"

# The names are those of __init__.pyi; their modules load on first use.
__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Saved models load after no more than `import tfvae`.
wrapt.register_post_import_hook(
    "tfvae.registration:register_stand_ins", "keras"
)
