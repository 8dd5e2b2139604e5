"""The trials of a sweep: what their folders hold, as a study of Optuna.

The folders are what counts: `changes.json` has the values of a trial, its run
writes `results.json` and the curves, and the file `stopped` says that it was
stopped early. The study is made anew from them at every start, so that a sweep
continues with another metric, with more seeds, or after a folder was removed.
"""

import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import optuna
from optuna.storages import journal
from optuna.trial import TrialState

from sne_jax import digests
from sne_jax.cli.sweeping.plan import Plan
from sne_jax.learning.evaluation import metrics
from sne_jax.learning.training import workdirs
from sne_jax.learning.training.records import FILE as METRICS
from sne_jax.learning.training.records import read_json, read_metrics

CHANGES = "changes.json"
JOURNAL = "study.journal"
NOT_RUN = "it has not run"
RESULTS = "results.json"
STOP = "stopped"


class Outcome(NamedTuple):
  """What is known of a trial."""

  number: int
  changes: dict[str, Any]  # The swept options; empty before they are chosen.
  results: dict[str, Any] | None  # Of `results.json`; None before there is one.
  stopped: bool  # Early, by the pruner.
  failed: str  # Why it is not finished; empty where it is, or is stopped.
  score: dict[str, float]  # Validation metric, its mean over seeds; may be {}.

  @property
  def value(self) -> float:
    """What the trial is ranked by; nan where it is undefined."""
    return self.score.get("mean", math.nan)


def read(plan: Plan, number: int, failed: str = "") -> Outcome:
  """Reads what a trial has left.

  Args:
    plan: the sweep.
    number: of the trial.
    failed: why it is not finished, as far as is known.

  Raises:
    ValueError: its results cannot be read, or lack the metric.
  """
  folder, changes = plan.folder(number), plan.planned[number]
  if not changes and (folder / CHANGES).exists():
    digests.check(folder, (CHANGES,))
    changes = read_json(folder / CHANGES)
  path, results, missing, known = folder / RESULTS, None, [NOT_RUN], {}
  if path.exists():
    try:
      digests.check(folder, (RESULTS,))
      results = json.loads(path.read_text())
      missing = [
        f"seed {seed} failed: {entry.get('failed', NOT_RUN)}"
        for seed, entry in _seeds(plan, results)
        if "metrics" not in entry
      ]
      known = {} if missing else part(plan, results, "val")
    except (ValueError, KeyError, TypeError) as error:
      raise ValueError(
        f"{path} cannot be read ({error}); remove it, and the trial runs again"
      ) from error
  if missing:
    stopped = (folder / STOP).exists()
    failed = "" if stopped else failed or missing[0]
    return Outcome(number, changes, results, stopped, failed, {})
  if plan.sweep.metric not in known:
    raise ValueError(
      f"metric is {plan.sweep.metric!r}, but the trials report"
      f" {', '.join(known)}"
    )
  return Outcome(number, changes, results, False, "", known[plan.sweep.metric])


def part(
  plan: Plan, results: Mapping[str, Any], name: str
) -> dict[str, dict[str, float]]:
  """Returns every metric of a part (val, test): its mean over seeds."""
  rows = [entry["metrics"].get(name, {}) for _, entry in _seeds(plan, results)]
  return {
    metric: metrics.mean_interval([row[metric]["value"] for row in rows])
    for metric in rows[0]
  }


def curve(plan: Plan, number: int) -> dict[int, float]:
  """Returns the validation metric of the first seed by training step.

  It is the loss, with the sign of the metric, where training does not measure
  the metric.
  """
  folder = plan.folder(number) / f"seed{plan.base.seeds.start}"
  workdirs.verify_seed(folder, (METRICS,))
  records, name, sign = read_metrics(folder), f"val/{plan.sweep.metric}", 1
  if not any(name in record for record in records):
    name, sign = "val/loss", -1 if plan.sweep.higher_is_better else 1
  return {r["step"]: sign * r[name] for r in records if name in r}


def study_of(plan: Plan) -> optuna.Study:
  """Makes the study: trials that are finished, and others that wait."""
  path = plan.workdir / JOURNAL
  for stale in (path, pathlib.Path(f"{path}.lock")):
    stale.unlink(missing_ok=True)
  optuna.logging.set_verbosity(optuna.logging.ERROR)
  backend = journal.JournalFileBackend(str(path))
  study = optuna.create_study(
    storage=optuna.storages.JournalStorage(backend),
    study_name=plan.base.title,
    direction="maximize" if plan.sweep.higher_is_better else "minimize",
    pruner=plan.pruner(),
  )
  for number in range(len(plan.planned)):
    outcome = read(plan, number)
    if outcome.failed:
      study.enqueue_trial(outcome.changes)
      continue
    study.add_trial(
      optuna.create_trial(
        state=_state(outcome),
        value=outcome.value if math.isfinite(outcome.value) else None,
        params=outcome.changes,
        distributions=plan.space,
        intermediate_values=curve(plan, number),
      )
    )
  return study


def ask(plan: Plan, study: optuna.Study) -> optuna.Trial:
  """Returns the next trial that waits, with its values."""
  waiting = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
  study.sampler = plan.sampler(waiting[0].number)
  trial = study.ask(plan.space)
  folder = plan.folder(trial.number)
  folder.mkdir(parents=True, exist_ok=True)
  digests.put(folder, {CHANGES: json.dumps(trial.params) + "\n"})
  return trial


def watch(
  plan: Plan, study: optuna.Study, trial: optuna.Trial, num_steps: int
) -> None:
  """Reports the curve of a running trial, and stops it if it falls behind.

  Not after its last step: then it has results to give.
  """
  for step in _report(plan, study, trial):
    if step < num_steps and trial.should_prune():
      (plan.folder(trial.number) / STOP).touch()
      return


def end(
  plan: Plan, study: optuna.Study, trial: optuna.Trial, outcome: Outcome
) -> None:
  """Tells the study how a trial has ended."""
  list(_report(plan, study, trial))  # Others are judged by all of its curve.
  if not outcome.stopped:  # It may have ended before it could be stopped.
    (plan.folder(trial.number) / STOP).unlink(missing_ok=True)
  state = _state(outcome)
  study.tell(
    trial, outcome.value if state == TrialState.COMPLETE else None, state
  )


def _report(
  plan: Plan, study: optuna.Study, trial: optuna.Trial
) -> Iterator[int]:
  """Reports what is new of the curve of a trial, step by step."""
  known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
  for step, value in curve(plan, trial.number).items():
    if step not in known:
      trial.report(value, step)
      yield step


def _state(outcome: Outcome) -> TrialState:
  if outcome.stopped:
    return TrialState.PRUNED
  # Undefined (a constant prediction has no rank correlation) is no value.
  defined = math.isfinite(outcome.value)
  return TrialState.COMPLETE if defined else TrialState.FAIL


def _seeds(plan: Plan, results) -> list[tuple[int, dict[str, Any]]]:
  """Returns the entry of every seed that the trials are asked for."""
  known = {entry["seed"]: entry for entry in results["seeds"]}
  return [(seed, known.get(seed, {})) for seed in plan.base.seeds]
