"""A command where the simulated devices are there: for it, and for the workers of its sweep.

    python tests/fake_device/launcher.py train model=mlp trainer.accelerator=fake
    FAKE_DEVICE_LACKS=float64 python tests/fake_device/launcher.py train model=mlp ...

`fake_device.py` lists what the devices can be told to be like.
"""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent.resolve()

if __name__ == "__main__":
    # Torch looks on the path for what it is to load when it is imported: in autoload/.
    os.environ["PYTHONPATH"] = os.pathsep.join(map(str, (HERE.parents[1], HERE / "autoload")))
    command, *arguments = sys.argv[1:] or ["train", "--help"]
    os.execv(sys.executable, [sys.executable, "-m", f"fmnist_pl.{command}", *arguments])
