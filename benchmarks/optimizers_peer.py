# SPDX-License-Identifier: Apache-2.0
r"""Runs other optimizers, for the benchmark `optimizers`.

They are no dependencies of tfvae; install them in a separate environment:

  python3 -m venv peers && peers/bin/pip install botorch optuna
  echo '{"method": "BoTorch", "problem": "Branin", "seed": 0, "budget": 50,
         "num_initial": 10}' | tr -d '\n' | \
      PYTHONPATH=. peers/bin/python benchmarks/optimizers_peer.py

Each line of standard input is a run, and has a JSON line as its answer, with
"regret" and "seconds" (for each query, without evaluations) or "error".
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.objectives import PROBLEMS, Problem

Found = tuple[np.ndarray, float]
"""The recommended point `[d]`, and the seconds of all proposals."""


def main() -> int:
    """Answers all lines of standard input and returns an exit code."""
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)
    return 0


def _run(asked: Mapping[str, Any]) -> dict[str, Any]:
    methods: dict[str, Callable[..., Found]] = {
        "BoTorch": _botorch,
        "Optuna, TPE": lambda *given: _optuna("TPESampler", *given),
        "Optuna, GP": lambda *given: _optuna("GPSampler", *given),
    }
    problem = PROBLEMS[asked["problem"]]
    seed, budget, count = (
        asked[name] for name in ("seed", "budget", "num_initial")
    )
    try:
        point, seconds = methods[asked["method"]](problem, seed, budget, count)
    except ImportError as error:
        return {"error": str(error)}
    return {
        "regret": problem.regret(point),
        "seconds": seconds / max(1, budget - count),
    }


def _botorch(problem: Problem, seed: int, budget: int, count: int) -> Found:
    """Runs BoTorch with the settings of its tutorials.

    That is log EI, and q-log-noisy-EI if there is noise; 10 restarts of 512 raw
    samples. It recommends the best evaluated point, of noisy scores by the
    posterior mean.
    """
    torch, *modules = map(
        importlib.import_module,
        (
            "torch",
            "botorch",
            "botorch.models.transforms",
            "gpytorch.mlls",
        ),
    )
    botorch, transforms, mlls = modules
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    points = problem.initial(seed, count)
    scores = [problem.evaluate(x, seed) for x in points]
    bounds = torch.tensor([[0.0], [1.0]]).double()
    bounds = bounds.repeat(1, problem.num_dimensions)

    def fit() -> tuple[Any, Any]:
        x = torch.tensor(np.array(points)).double()
        y = torch.tensor(scores).double()[:, None]
        model = botorch.models.SingleTaskGP(
            x, y, outcome_transform=transforms.Standardize(m=1)
        )
        likelihood = mlls.ExactMarginalLogLikelihood(model.likelihood, model)
        botorch.fit_gpytorch_mll(likelihood)
        return model, x

    begun = time.perf_counter()
    while len(points) < budget:
        model, x = fit()
        acquisition = botorch.acquisition
        if problem.noise_std:
            function = acquisition.logei.qLogNoisyExpectedImprovement(model, x)
        else:
            function = acquisition.LogExpectedImprovement(
                model, best_f=max(scores)
            )
        found, _ = botorch.optim.optimize_acqf(
            function, bounds, q=1, num_restarts=10, raw_samples=512
        )
        points = np.append(points, found.numpy().astype(np.float32), 0)
        scores.append(problem.evaluate(points[-1], seed))
    seconds = time.perf_counter() - begun
    merits = np.array(scores)
    if problem.noise_std:
        model, x = fit()
        merits = model.posterior(x).mean.detach().numpy()[:, 0]
    return points[np.argmax(merits)], seconds


def _optuna(
    sampler: str, problem: Problem, seed: int, budget: int, count: int
) -> Found:
    """Runs Optuna; it recommends the trial of the best score, noisy or not."""
    optuna = importlib.import_module("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = [f"x{i}" for i in range(problem.num_dimensions)]
    uniform = optuna.distributions.FloatDistribution(0.0, 1.0)
    space = {name: uniform for name in names}
    settings = {"seed": seed, "n_startup_trials": count}
    if sampler == "GPSampler":
        settings["deterministic_objective"] = not problem.noise_std
    study = optuna.create_study(
        direction="maximize",
        sampler=getattr(optuna.samplers, sampler)(**settings),
    )
    for x in problem.initial(seed, count):
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(zip(names, map(float, x), strict=True)),
                distributions=space,
                value=problem.evaluate(x, seed),
            )
        )
    seconds = 0.0
    for _ in range(budget - count):
        begun = time.perf_counter()
        trial = study.ask(space)
        seconds += time.perf_counter() - begun
        x = np.array([trial.params[name] for name in names], np.float32)
        study.tell(trial, problem.evaluate(x, seed))
    return np.array([study.best_params[name] for name in names]), seconds


if __name__ == "__main__":
    sys.exit(main())
