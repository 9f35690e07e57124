"""Tensors out of files that others published, whatever their format; nothing in a file is ever run."""

import json
import pickle
import re
import struct
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


class WeightsError(ValueError):
    """Weights that cannot be had or do not fit; one line."""


class Inert:
    """Stands in a file for an object of another library: it is made, keeps nothing and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


INERT = (
    # statistics and settings beside the weights: numpy's scalars and arrays, under the names of numpy 1 and 2
    "numpy.core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    # training curves of mmengine; a curve names its own methods, which the pickle fetches by `getattr`
    "mmengine.logging.history_buffer.HistoryBuffer",
    "mmengine.logging.message_hub.MessageHub",
    "builtins.getattr",
    # command lines, in checkpoints of MAE
    "argparse.Namespace",
)
"""What a pickle may name besides tensors and plain containers; it gets `Inert`, never the thing itself."""

WRAPPERS = ("state_dict", "model")
"""Where training checkpoints keep the weights: mmpose and ViTPose; MAE."""

FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""Where transformers keeps the weights in a folder; an index names the files that the tensors are spread over."""

BROKEN = (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError)
"""What torch raises on files that are cut or not its own, besides unpickling and struct errors."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a file (.safetensors, .pth, .pt, .bin) or of a folder of transformers, on the CPU, by name.

    Raises:
        WeightsError: there are none, they cannot be read, or reading them would run code.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise WeightsError(f"{path}: missing, wanted a file or folder of weights")
    if path.suffix not in READERS:
        raise WeightsError(f"{path}: found a file {path.suffix or 'without ending'}, wanted {', '.join(READERS)}")
    return READERS[path.suffix](path)


def _read_folder(folder: Path) -> dict[str, Tensor]:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return _read_index(folder / name) if name.endswith(".json") else read_tensors(folder / name)
    raise WeightsError(f"{folder}: a folder without weights, wanted one of {', '.join(FOLDER_FILES)} in it")


def _read_index(index: Path) -> dict[str, Tensor]:
    """Tensors spread over the files that an index names, all in its own folder."""
    try:
        file_of = dict(json.loads(index.read_text())["weight_map"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{index}: cannot be read ({_reason(error)}), wanted weight_map: tensor to file") from error
    tensors: dict[str, Tensor] = {}
    for name in sorted({str(file) for file in file_of.values()}):
        if Path(name).name != name:
            raise WeightsError(f"{index}: names the file {name!r}, wanted files of its own folder")
        tensors |= read_tensors(index.parent / name)
    if missing := file_of.keys() - tensors.keys():
        raise WeightsError(
            f"{index}: {len(missing)} of its {len(file_of)} tensors are missing, the first is {min(missing)!r}"
        )
    return tensors


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{file}: cannot be read as safetensors ({_reason(error)})") from error


def _read_pickle(file: Path) -> dict[str, Tensor]:
    stand_ins: list[tuple[Callable, str]] = [(Inert, name) for name in INERT]
    try:
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except pickle.UnpicklingError as error:
        raise _refusal(file, error) from error
    except (*BROKEN, struct.error) as error:
        raise WeightsError(f"{file}: cannot be read as a file of torch ({_reason(error)})") from error
    return _unwrap(file, content)


def _is_zip(file: Path) -> bool:
    """Whether it is of torch >= 1.6, which alone can be mapped into memory."""
    with file.open("rb") as content:
        return content.read(4) == b"PK\x03\x04"


def _refusal(file: Path, error: pickle.UnpicklingError) -> WeightsError:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    if named:
        return WeightsError(f"{file}: refused: it would run {named[1]}, wanted tensors only")
    # What torch says before advises to read the file unsafely.
    cause = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return WeightsError(f"{file}: cannot be read as a file of torch ({textwrap.shorten(cause, width=200)})")


def _unwrap(file: Path, content: object) -> dict[str, Tensor]:
    """The tensors of a training checkpoint, without the prefix that DataParallel puts before their names."""
    state = content if isinstance(content, Mapping) else {}
    inner = (state[key] for key in WRAPPERS if isinstance(state.get(key), Mapping))
    state = next(inner, state)
    tensors = {
        name.removeprefix("module."): value.detach()
        for name, value in state.items()
        if isinstance(name, str) and isinstance(value, Tensor)
    }
    if not tensors:
        raise WeightsError(
            f"{file}: holds no tensors by name, wanted a state dict, alone or in {' or '.join(WRAPPERS)}"
        )
    return tensors


def _reason(error: Exception) -> str:
    """A library's error in one line, however long it is."""
    return textwrap.shorten(str(error) or type(error).__name__, width=200)


READERS: dict[str, Callable[[Path], dict[str, Tensor]]] = {
    ".safetensors": _read_safetensors,
    ".pth": _read_pickle,
    ".pt": _read_pickle,
    ".bin": _read_pickle,
}
