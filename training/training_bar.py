"""One line of progress: how far, how fast in pairs, how long still."""

from __future__ import annotations

from tqdm import tqdm

from training.schedule_config import ScheduleConfig


class TrainingBar:
    """Shows ``train  12%|█▏  | 1680/14000 steps [03:12<23:25, 17900 pairs/s, loss 1.234]``."""

    _FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} steps [{elapsed}<{remaining}{postfix}]"

    def __init__(self, schedule: ScheduleConfig, first: int, *, shown: bool) -> None:
        self._batch = schedule.batch
        self._bar = tqdm(
            total=schedule.steps, initial=first, desc="train", bar_format=self._FORMAT, disable=not shown
        )

    def update(self) -> None:
        """Count a step."""
        self._bar.update()

    def show(self, loss: float) -> None:
        """Show the mean loss of the last steps, and the speed since the bar began or changed."""
        rate = self._bar.format_dict["rate"]
        speed = "" if rate is None else f"{rate * self._batch:,.0f} pairs/s, "
        self._bar.set_postfix_str(f"{speed}loss {loss:.3f}", refresh=False)

    def write(self, line: str) -> None:
        """Print a line above the bar."""
        self._bar.write(line)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
