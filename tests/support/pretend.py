"""A pretended GPU: tensors in the CPU's memory that say "cuda:0", and torch's rules about mixing devices, enforced.

It finds where code mixes devices or reads a GPU's tensor as numpy. It says nothing about speed, kernels, determinism or
the numbers of a real GPU.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
MEMORY = (80 << 30, 80 << 30)  # free and total, in bytes
CROSSING = ("copy_", "type_as", "_has_compatible_shallow_copy_type", "backward", "set_", "is_same_size")  # may mix
STRICT = ("cat", "concat", "stack", "hstack", "vstack")  # take no tensor of the CPU, not even of one number
INDEXING = ("__getitem__", "__setitem__", "index_put", "index_put_")
PLACES = {"device": GPU, "is_cuda": True, "is_cpu": False}  # what a tensor says of where it is
HERE = ("marl", "algos", "attacks", "envs", "tests")  # packages whose modules have bound torch's names


class MixedDevicesError(RuntimeError):
    """What torch refuses on a machine with a GPU."""


_CPU_GENERATOR = torch.Generator


class OnGpu(torch.Tensor):
    """A tensor that claims to be on the GPU."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class GpuGenerator(torch.Generator):
    """A generator that claims to be on the GPU."""

    device = GPU


class _Mode(TorchFunctionMode):
    """Sees the functions without a tensor among their arguments, such as ``torch.zeros(3, device="cuda")``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})


class _Generators(torch.Generator):
    """Makes the generator of a device, in the place of ``torch.Generator``."""

    def __new__(cls, device: torch.device | str = "cpu") -> Any:
        return GpuGenerator() if torch.device(device).type == "cuda" else _CPU_GENERATOR()


def _to_gpu(value: Any) -> Any:
    if not isinstance(value, torch.Tensor) or isinstance(value, OnGpu) or _in_vmap(value):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(OnGpu)


def _to_cpu(value: Any) -> Any:
    if not isinstance(value, OnGpu):
        return value
    with torch._C.DisableTorchFunctionSubclass():
        return value.as_subclass(torch.Tensor)


def _in_vmap(tensor: torch.Tensor) -> bool:
    return torch._C._functorch.is_functorch_wrapped_tensor(tensor)


def _kind(device: Any) -> str | None:
    """Return "cpu", "cuda" or None of what can stand for a device."""
    if device is None or isinstance(device, int):
        return None if device is None else "cuda"
    return torch.device(device).type


def _name(tensor: torch.Tensor) -> str:
    return f"{'cuda:0' if isinstance(tensor, OnGpu) else 'cpu'} {list(tensor.shape)}"


def _plain(func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Call a torch function as on a machine with a GPU: raise what torch would raise; results lie where they would."""
    name, me = getattr(func, "__name__", str(func)), args[0] if args else None
    if name == "__get__" and isinstance(me, OnGpu) and func.__self__.__name__ in PLACES:
        return PLACES[func.__self__.__name__]
    if name == "__set__":
        return _plain(func, args, kwargs)
    if isinstance(me, torch.Tensor) and name in MOVES:
        return MOVES[name](func, *args, **kwargs)
    kwargs = {key: value for key, value in kwargs.items() if key != "pin_memory"}
    target = _kind(kwargs.get("device"))
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    on_gpu = any(isinstance(tensor, OnGpu) for tensor in tensors)
    _check_generator(name, kwargs.get("generator"), target == "cuda" or (on_gpu and target is None))
    if on_gpu:
        _check_devices(name, args, tensors)
    if target is not None and target != "meta":
        kwargs["device"] = CPU
    out = _plain(func, args, kwargs)
    if out is me:
        return out
    return tree_map(_to_gpu if target == "cuda" or (on_gpu and target is None) else _to_cpu, out)


def _check_generator(name: str, gen: torch.Generator | None, on_gpu: bool) -> None:
    if gen is not None and isinstance(gen, GpuGenerator) != on_gpu:
        raise MixedDevicesError(f"{name}: expected a generator on {'cuda' if on_gpu else 'cpu'}, found {gen.device}")


def _check_devices(name: str, args: Any, tensors: list[torch.Tensor]) -> None:
    """Refuse a mixture. A single number of the CPU goes with everything; only assignments carry tensors across."""
    if name in INDEXING:
        _check_indices(name, *args)
        return
    strangers = [t for t in tensors if not isinstance(t, OnGpu) and not _in_vmap(t) and (t.dim() or name in STRICT)]
    if strangers and name not in CROSSING:
        raise MixedDevicesError(f"{name}: all tensors must be on one device, found {', '.join(map(_name, tensors))}")


def _check_indices(name: str, me: torch.Tensor, index: Any, value: Any = None, *rest: Any) -> None:
    """Refuse indices of the GPU in a tensor of the CPU, and values that indices would carry across."""
    indices = [leaf for leaf in tree_leaves(index) if isinstance(leaf, torch.Tensor)]
    if not isinstance(me, OnGpu) and any(isinstance(i, OnGpu) and i.dim() for i in indices):
        raise MixedDevicesError(f"{name}: {_name(me)} is indexed by {', '.join(map(_name, indices))}")
    if (
        indices
        and isinstance(value, torch.Tensor)
        and value.dim()
        and isinstance(value, OnGpu) != isinstance(me, OnGpu)
    ):
        raise MixedDevicesError(f"{name}: {_name(value)} is written into {_name(me)} at indices")


def _move(func: Any, me: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Do what ``Tensor.to`` does; a tensor that moves is a copy."""
    kwargs.pop("non_blocking", None)
    target = kwargs.get("device")
    positional = list(args)
    for i, value in enumerate(args):
        if isinstance(value, torch.Tensor):
            target, positional[i] = value.device, _to_cpu(value)
        elif isinstance(value, str | torch.device) or (i == 0 and isinstance(value, int)):
            target, positional[i] = value, CPU
    if kwargs.get("device") is not None:
        kwargs["device"] = CPU
    here = "cuda" if isinstance(me, OnGpu) else "cpu"
    there = _kind(target) or here
    out = _plain(func, (me, *positional), kwargs)
    if there != here and out.data_ptr() == me.data_ptr():
        out = _plain(torch.Tensor.clone, (out,), {})
    return _to_gpu(out) if there == "cuda" else _to_cpu(out)


def _refuse_numpy(func: Any, me: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    if isinstance(me, OnGpu):
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")
    return _plain(func, (me, *args), kwargs)


def _deep_copy(func: Any, me: torch.Tensor, memo: dict[int, Any]) -> torch.Tensor:
    """Copy a tensor or parameter; torch's own way goes through the storage and forgets what the tensor claims."""
    if not isinstance(me, OnGpu):
        return _plain(func, (me, memo), {})
    if id(me) not in memo:
        with torch._C.DisableTorchFunctionSubclass():
            copy = me.detach().clone().as_subclass(OnGpu).requires_grad_(me.requires_grad)
        if getattr(me, "_is_param", False):
            copy._is_param = True  # type: ignore[attr-defined]
        memo[id(me)] = copy
    return memo[id(me)]


MOVES: dict[str, Callable[..., Any]] = {
    "to": _move,
    "cpu": lambda func, me: _move(torch.Tensor.to, me, "cpu"),
    "cuda": lambda func, me: _move(torch.Tensor.to, me, "cuda"),
    "numpy": _refuse_numpy,
    "__array__": _refuse_numpy,
    "__dlpack__": _refuse_numpy,
    "__deepcopy__": _deep_copy,
}


def _saved(tree: Any) -> Any:
    """Return a tree of tensors as a file would hold it."""
    if isinstance(tree, dict):
        return {key: _saved(value) for key, value in tree.items()}
    return type(tree)(map(_saved, tree)) if isinstance(tree, list | tuple) else _to_cpu(tree)


@contextlib.contextmanager
def pretended_gpu() -> Iterator[None]:
    """Let this machine have one GPU inside this context: ``device=cuda`` is possible, and what is on it stays apart."""
    save, vmap, generator = torch.save, torch.func.vmap, torch.Generator

    def leaving(fn: Callable[..., Any], *options: Any, **more: Any) -> Callable[..., Any]:
        mapped = vmap(fn, *options, **more)  # inside, tensors have no device; what comes out has that of what went in

        def call(*args: Any, **kwargs: Any) -> Any:
            out = mapped(*args, **kwargs)
            return tree_map(_to_gpu, out) if any(isinstance(t, OnGpu) for t in tree_leaves((args, kwargs))) else out

        return call

    with contextlib.ExitStack() as stack:
        for target, name, replacement in (
            (torch.cuda, "device_count", lambda: 1),
            (torch.cuda, "mem_get_info", lambda device=None: MEMORY),
            (
                torch.backends.cudnn,
                "is_acceptable",
                lambda tensor: False,
            ),  # cuDNN would pack weights
            (torch.cuda, "get_device_name", lambda device=None: "a pretended one"),
            (torch.cuda, "synchronize", lambda device=None: None),
            (torch, "save", lambda tree, file, **options: save(_saved(tree), file, **options)),
            (torch, "Generator", _Generators),
            (torch.func, "vmap", leaving),
        ):
            stack.enter_context(mock.patch.object(target, name, replacement))
        for module in [m for name, m in sys.modules.items() if name.partition(".")[0] in HERE]:
            for name, real, replacement in (("Generator", generator, _Generators), ("vmap", vmap, leaving)):
                if vars(module).get(name) is real:
                    stack.enter_context(mock.patch.object(module, name, replacement))
        stack.callback(
            torch.__future__.set_overwrite_module_params_on_conversion,
            torch.__future__.get_overwrite_module_params_on_conversion(),
        )
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        stack.enter_context(_Mode())
        yield
