"""What a recipe says about evaluation. No torch: a recipe is checked without it."""

from __future__ import annotations

from pydantic import Field, model_validator

from embedsvc.errors import EmbedsvcError
from training.section import Section

HELD_OUT = "held_out_accuracy"


class EvaluationConfig(Section):
    """Tasks to be measured on the model as it would be served; the held-out ranking accuracy always is.

    ``best`` names the figure by which the best model so far is kept in ``run/best``: the main one of a task
    in ``during``, or "held_out_accuracy".
    """

    data: str  # folder with the test sets, relative to where the pairs are
    tasks: list[str] = Field(default_factory=list)  # at the end, as `embedsvc evaluate` takes them
    during: list[str] = Field(default_factory=list)  # at every schedule.evaluate_every too: quick ones
    best: str | None = None

    @model_validator(mode="after")
    def _tasks_are_known(self) -> EvaluationConfig:
        from training.evaluation.run import check_tasks  # only runs that evaluate have to wait for it

        for tasks in (self.tasks, self.during):
            try:
                check_tasks(tasks)
            except EmbedsvcError as error:
                raise ValueError(str(error)) from error
        if not (self.tasks or self.during or self.best):
            raise ValueError("neither tasks nor during nor best is given: there is nothing to do")
        if self.best not in (None, HELD_OUT, *self.during):
            raise ValueError(
                f"best = {self.best!r} is measured nowhere: expected {HELD_OUT!r} or a task in during"
            )
        return self
