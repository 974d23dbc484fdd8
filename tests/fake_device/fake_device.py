"""Torch devices `fake:0`, `fake:1`, ..., whose memory is the CPU's, and Lightning's way to them.

They are there in a process that has called `install`, and in every process that imports torch
where `autoload/` is on the path, as `launcher.py` puts it. A process has them for good: tests
install them in processes of their own. Variables of the environment say what they are like:

    FAKE_DEVICE_COUNT=2      how many; if not given, one
    FAKE_DEVICE_AUTO=1       accelerator=auto takes them, as it takes a GPU
    FAKE_DEVICE_LACKS=A,B    what they cannot do: float64, an operator (aten::grid_sampler_2d),
                             float32 (convolutions round as TF32), float32_by_default (likewise,
                             unless torch.backends.cudnn.allow_tf32 is off)
    FAKE_DEVICE_LOG=FOLDER   a file for each process, a line for each time that a GPU would wait
    FAKE_DEVICE_CACHE=FOLDER where the compiled device is kept; if not given, the user's cache

Not simulated: streams and asynchrony, kernels of a GPU's own, several devices in one run,
compiling, the limits of its memory.
"""

import atexit
import ctypes
import fcntl
import hashlib
import os
import shutil
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch

CONNECTOR = "lightning.pytorch.trainer.connectors.accelerator_connector"
SOURCE = Path(__file__).with_name("fake_device.cpp")
CALLBACK = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p)
NOBODY = CALLBACK()

_kept: list[Any] = []  # what the library calls as long as the process lives


def tools_path() -> str:
    """Where the compiler and ninja are looked for: of an environment, too, that is not active."""
    return os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)))


def missing_tools() -> list[str]:
    """What compiling takes and this machine does not have."""
    return [tool for tool in ("g++", "ninja") if not shutil.which(tool, path=tools_path())]


def build() -> Path:
    """The shared library; compiled once for a version of torch, by whoever comes first."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("FAKE_DEVICE_CACHE") or cache / "fmnist_pl-fake-device")
    folder.mkdir(parents=True, exist_ok=True)
    version = f"{torch.__version__}-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]}"
    library = folder / f"{version}.so"
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            compile_to(library)
    return library


def compile_to(library: Path) -> None:
    from torch.utils.cpp_extension import load

    before = os.environ.get("PATH", os.defpath)
    with TemporaryDirectory(dir=library.parent) as folder:
        os.environ["PATH"] = tools_path()
        try:
            load(
                "fake_device",
                [str(SOURCE)],
                extra_cflags=["-O0"],
                build_directory=folder,
                is_python_module=False,  # but torch.ops.load_library's
                with_cuda=False,
            )
        finally:
            os.environ["PATH"] = before
        Path(folder, "fake_device.so").replace(library)


def install() -> None:
    """Make the devices of this process; in a process that has them, nothing."""
    if hasattr(torch, "fake"):
        return
    path = build()
    torch.ops.load_library(path)
    library = ctypes.CDLL(str(path))
    library.fake_device_count(int(os.environ.get("FAKE_DEVICE_COUNT") or 1))
    for name in filter(None, os.environ.get("FAKE_DEVICE_LACKS", "").split(",")):
        library.fake_device_lack(name.encode())
    torch.utils.rename_privateuse1_backend("fake")
    torch._register_device_module("fake", device_module(library))
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    if CONNECTOR in sys.modules:
        register_with_lightning()
    else:
        sys.meta_path.insert(0, Registration())
    if folder := os.environ.get("FAKE_DEVICE_LOG"):
        listen(library, Path(folder))


def device_module(library: ctypes.CDLL) -> ModuleType:
    """What torch looks for under `torch.fake`."""

    def index(device: Any = None) -> int:
        if device is None:
            return current_device()
        return device if isinstance(device, int) else torch.device(device).index or 0

    def current_device() -> int:
        now = library.fake_device_exchange(0)
        library.fake_device_exchange(now)
        return int(now)

    def set_device(device: Any) -> None:
        library.fake_device_exchange(index(device))

    @contextmanager
    def device(device: Any = None) -> Iterator[None]:
        before = library.fake_device_exchange(index(device))
        try:
            yield
        finally:
            library.fake_device_exchange(before)

    module = ModuleType("torch.fake")
    vars(module).update(
        is_available=lambda: True,
        is_initialized=lambda: True,
        _is_in_bad_fork=lambda: False,
        device_count=lambda: int(os.environ.get("FAKE_DEVICE_COUNT") or 1),
        current_device=current_device,
        set_device=set_device,
        device=device,
        synchronize=lambda device=None: None,
        empty_cache=lambda: None,
        manual_seed=lambda seed: None,  # random numbers are the CPU generator's
        manual_seed_all=lambda seed: None,
        get_rng_state=lambda device="fake": torch.get_rng_state(),
        set_rng_state=lambda state, device="fake": None,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        get_device_name=lambda device=None: "fake",
    )
    return module


def listen(library: ctypes.CDLL, folder: Path) -> None:
    """Write down all for which a GPU would wait: kind, device, when, where, what.

    When is `fit` or `-`; where is as of `place`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = (folder / f"{os.getpid()}.tsv").open("a", buffering=1)

    def hear(kind: bytes, device: int, detail: bytes) -> None:
        when, where = place()
        log.write("\t".join((kind.decode(), str(device), when, where, detail.decode())) + "\n")

    _kept.append(CALLBACK(hear))
    library.fake_device_listen(_kept[-1])
    atexit.register(library.fake_device_listen, NOBODY)  # Python's end is too late for it


def place() -> tuple[str, str]:
    """Whether Lightning is fitting, and the innermost line of the package, or of Lightning."""
    frames = [
        (frame.f_code.co_filename, frame.f_code.co_name, line)
        for frame, line in traceback.walk_stack(sys._getframe())
    ]
    # What has a thread of its own is autograd.
    fitting = threading.current_thread() is not threading.main_thread() or any(
        name == "fit" and path.endswith("/trainer/trainer.py") for path, name, _ in frames
    )
    where = next(
        (
            f"{Path(path).name}:{line} {name}"
            for package in ("/fmnist_pl/", "/lightning/")
            for path, name, line in frames
            if package in path
        ),
        "autograd",
    )
    return "fit" if fitting else "-", where


class Registration(MetaPathFinder):
    """Registers the device as soon as Lightning has what it takes: torch comes before it."""

    def find_spec(self, name: str, *_: Any) -> ModuleSpec | None:
        if name != CONNECTOR:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            register_with_lightning()

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def register_with_lightning() -> None:
    """`Trainer(accelerator="fake")`."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException
    from lightning.pytorch.accelerators import AcceleratorRegistry
    from lightning.pytorch.accelerators.accelerator import Accelerator
    from lightning.pytorch.plugins.precision import MixedPrecision
    from lightning.pytorch.strategies import SingleDeviceStrategy
    from lightning.pytorch.trainer.connectors.accelerator_connector import _AcceleratorConnector

    class FakeAccelerator(Accelerator):
        def setup_device(self, device: torch.device) -> None:
            assert device.type == "fake"
            torch.get_device_module("fake").set_device(device)

        def teardown(self) -> None:
            pass

        def get_device_stats(self, device: Any) -> dict[str, Any]:
            return {}

        @staticmethod
        def parse_devices(devices: Any) -> list[int]:
            """As CUDA's: 2, "2", -1, [1], "1,"."""
            count = FakeAccelerator.auto_device_count()
            if isinstance(devices, str):
                listed = "," in devices
                devices = [int(one) for one in devices.split(",") if one]
                devices = devices if listed else devices[0]
            if isinstance(devices, int):
                devices = list(range(count if devices == -1 else devices))
            if not set(devices) <= set(range(count)):
                raise MisconfigurationException(
                    f"You requested fake: {devices}\n But your machine only has {count}"
                )
            return list(devices)

        @staticmethod
        def get_parallel_devices(devices: list[int]) -> list[torch.device]:
            return [torch.device("fake", i) for i in devices]

        @staticmethod
        def auto_device_count() -> int:
            return int(torch.get_device_module("fake").device_count())

        @staticmethod
        def is_available() -> bool:
            return True

        @staticmethod
        def name() -> str:
            return "fake"

    AcceleratorRegistry.register("fake", FakeAccelerator, override=True)

    # For one it does not know Lightning takes the CPU as the device, and CUDA's autocast.
    choose = _AcceleratorConnector._choose_strategy
    precision = _AcceleratorConnector._check_and_init_precision

    def choose_strategy(self: Any) -> Any:
        if self._accelerator_flag == "fake" and len(self._parallel_devices) == 1:
            return SingleDeviceStrategy(device=self._parallel_devices[0])
        return choose(self)

    def choose_precision(self: Any) -> Any:
        plugin = precision(self)
        if self._accelerator_flag == "fake" and isinstance(plugin, MixedPrecision):
            plugin.device = "fake"
            if self._precision_flag == "16-mixed":
                plugin.scaler = torch.amp.GradScaler("fake")
        return plugin

    if os.environ.get("FAKE_DEVICE_AUTO"):
        _AcceleratorConnector._choose_auto_accelerator = staticmethod(lambda: "fake")
    _AcceleratorConnector._choose_strategy = choose_strategy
    _AcceleratorConnector._check_and_init_precision = choose_precision
