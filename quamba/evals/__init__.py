"""Evaluation: lm-eval tasks and perplexity. Nothing of lm-eval is loaded before a task runs."""

from quamba.evals.perplexity import perplexity
from quamba.evals.task_files import check_tasks
from quamba.evals.tasks_run import evaluate_tasks

__all__ = ["check_tasks", "evaluate_tasks", "perplexity"]
