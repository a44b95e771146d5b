# SPDX-License-Identifier: Apache-2.0
r"""BoTorch's Gaussian process and acquisition function on tfvae's latents.

  pip install botorch
  python -m examples.with_botorch runs/botorch

BoTorch proposes; tfvae decodes, evaluates and records, and trains the VAE again
on weighted data every ten queries. A strategy is any object with these methods.
`Context` says what else it is given, such as the constraints.
"""

import dataclasses
import sys

import numpy as np
import torch
from botorch.acquisition.logei import qLogNoisyExpectedImprovement
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.transforms import Normalize
from botorch.optim import optimize_acqf
from gpytorch.mlls import ExactMarginalLogLikelihood

from examples import peptide_vae
from examples.text_from_csv import task
from tfvae import lso
from tfvae.lso.strategies import Context


@dataclasses.dataclass(frozen=True)
class NoisyImprovement:
    """Queries a maximum of the noisy expected improvement of a batch."""

    batch_size: int = 2
    uses_data = True
    uses_surrogate = False

    def num_at_a_time(self, num_left: int) -> int:
        return min(self.batch_size, num_left)

    def propose(
        self, context: Context, num_queries: int, seed: int
    ) -> np.ndarray:
        torch.manual_seed(seed)
        x = torch.tensor(context.latents, dtype=torch.float64)
        y = torch.tensor(context.scores)[:, None]
        model = SingleTaskGP(x, y, input_transform=Normalize(x.shape[1]))
        fit_gpytorch_mll(ExactMarginalLogLikelihood(model.likelihood, model))
        pending = torch.tensor(context.pending, dtype=torch.float64)
        acquisition = qLogNoisyExpectedImprovement(model, x, X_pending=pending)
        box = torch.stack([x.min(0).values, x.max(0).values])
        found, _ = optimize_acqf(acquisition, box, num_queries, 4, 64)
        return found.numpy().astype(np.float32)


def main(folder: str, budget: int = 30, epochs: int = 200) -> None:
    """Makes the queries of a run that has not made them yet."""
    with lso.LatentSpaceOptimizer.of_model(
        folder,
        task,
        peptide_vae.trained(epochs),
        lso.Plan(budget, 10, num_best=50, num_random=100, skips_known=True),
        strategy=NoisyImprovement(),
        weighting=lso.Rank(1e-3),
    ) as optimizer:
        optimizer.run()
        print(f"best {task.score_label} {optimizer.best():.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
