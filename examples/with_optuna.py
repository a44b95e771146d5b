# SPDX-License-Identifier: Apache-2.0
r"""Latent space optimisation as a study of Optuna, with its dashboard.

  pip install optuna optuna-dashboard
  python -m examples.with_optuna runs/optuna
  optuna-dashboard sqlite:///runs/optuna/study.db

Each query is a trial of the study, whose user attributes are the number and the
input of the query. After a kill, or after `study.tell` elsewhere, either the
study or the ledger has more than the other; the next start gives each of them
what it lacks. A finished trial can not be changed in Optuna: a result that is
amended in the ledger stays as it was in the study, and one that is withdrawn
comes back from there.
"""

import sys

import optuna
from optuna.trial import TrialState, create_trial

from examples import peptide_vae
from examples.text_from_csv import task
from tfvae import lso
from tfvae.lso.evaluation import evaluate_one


def agree(study: optuna.Study, optimizer: lso.LatentSpaceOptimizer) -> None:
    """Gives the study and the ledger what only the other one has."""
    waiting = {one.number: one for one in optimizer.ledger.waiting}
    entries = {one.query: one for one in optimizer.ledger.entries}
    known = {one.user_attrs["query"] for one in study.trials}
    inputs = {n: one.input for n, one in entries.items()}
    inputs |= {n: one.input for n, one in waiting.items()}
    for number, content in inputs.items():
        if number not in known:
            facts = {"query": number, "input": content}
            trial = create_trial(state=TrialState.RUNNING, user_attrs=facts)
            study.add_trial(trial)
    for trial in study.trials:
        number = trial.user_attrs["query"]
        if trial.state == TrialState.RUNNING and number not in waiting:
            score = entries[number].score
            kind = TrialState.FAIL if score is None else TrialState.COMPLETE
            study.tell(trial.number, score, kind)
        elif trial.state.is_finished() and number in waiting:
            failure = "the trial failed" if trial.value is None else None
            optimizer.tell(number, trial.value, failure=failure)


def main(folder: str, budget: int = 30, epochs: int = 200) -> None:
    """Makes the queries of a run that has not made them yet."""
    with lso.LatentSpaceOptimizer.of_model(
        folder,
        task,
        peptide_vae.trained(epochs),
        lso.Plan(budget, queries_per_round=10, skips_known=True),
        strategy=lso.ExpectedImprovement(),
        surrogate=lso.SparseGaussianProcess(num_inducing=100),
        weighting=lso.Rank(1e-3),
    ) as optimizer:
        study = optuna.create_study(
            study_name=task.name,
            storage=f"sqlite:///{folder}/study.db",
            direction="maximize",
            load_if_exists=True,
        )
        agree(study, optimizer)
        while queries := optimizer.ask():
            agree(study, optimizer)
            for query in queries:
                result = evaluate_one(task.objective, query.input)
                optimizer.tell(
                    query.number, result.score, failure=result.failure
                )
            agree(study, optimizer)


if __name__ == "__main__":
    main(sys.argv[1])
