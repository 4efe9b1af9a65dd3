"""Run as a process of its own by tests: train the tiny recipe, and optionally die in the middle of it."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from pathlib import Path

# Lightning starts the other processes of a DDP run with this very command.
warnings.simplefilter("ignore")
sys.path.insert(0, str(Path(__file__).parent))


def main(out: str, kill_at: int, *overrides: str) -> None:
    from conftest import RECIPE, make_stores

    from fieldmark.training import is_main_process, make_recipe, train
    from fieldmark.training.module import TrainingModule

    step = TrainingModule.training_step
    seen = Path(out) / f"seen-{os.environ.get('LOCAL_RANK', '0')}.txt"

    def watched(self, batch, batch_index):
        if kill_at >= 0 and self.stage.name == "episodes" and batch["step"] == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        with seen.open("a") as file:
            file.write(f"{self.stage.name} {batch['step']} {sorted(batch['images'].sum((1, 2, 3)).tolist())}\n")
        return step(self, batch, batch_index)

    TrainingModule.training_step = watched
    # As after a start-up that was interrupted often: state is saved after every step, inside epochs too.
    if kill_at >= 0:
        import fieldmark.training.callbacks as callbacks

        callbacks.Interruptions.__init__.__defaults__ = (0.0,)
    train(make_recipe(RECIPE, overrides), out, data=make_stores())
    print("done" if is_main_process() else "helped")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
