"""The worker that measures PyTorch: see `workers`. Its networks come from our stage tables.

It imports nothing of JAX. Everything is channels last; convolutions are cuDNN's in benchmark mode,
or oneDNN's; bfloat16 is by autocast.
"""

import contextlib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from workers import Work, integers, noise, serve, spread_over

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RATE = 1e-4
"""As in `ours`."""


class Plain(nn.Module):
    """A convolution with a bias, ReLU and dropout."""

    def __init__(self, row: dict[str, Any], exact: bool):
        super().__init__()
        self.conv = conv2d(row["conv"])
        self.relu, self.dropout, self.exact = row["relu"], row["dropout"], exact

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.exact:
            with torch.autocast(DEVICE.type, enabled=False):
                x = self.conv(x.float())
        else:
            x = self.conv(x)
        x = nn.functional.relu(x, inplace=True) if self.relu else x
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x


class Block(nn.Module):
    """Convolutions with batch norm, and a shortcut before the last ReLU."""

    def __init__(self, block: dict[str, Any]):
        super().__init__()
        self.path = block["path"]
        shortcut = block["shortcut"]
        self.projection_spec = shortcut if isinstance(shortcut, dict) else None
        self.identity = shortcut == "identity"
        for conv in [*self.path, *([self.projection_spec] if self.projection_spec else [])]:
            self.add_module(conv["name"], conv2d(conv))
            self.add_module(conv["norm"], nn.BatchNorm2d(conv["outputs"]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        *inner, last = self.path
        y = x
        for conv in inner:
            y = nn.functional.relu(self._normed(conv, y), inplace=True)
        y = self._normed(last, y)
        if self.projection_spec:
            y = y + self._normed(self.projection_spec, x)
        elif self.identity:
            y = y + x
        return nn.functional.relu(y, inplace=True)

    def _normed(self, conv: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
        return getattr(self, conv["norm"])(getattr(self, conv["name"])(x))


class Network(nn.Module):
    """A network of the rows that `cases.row` spells out; gives scores float32, [N, classes] or
    [N, classes, h, w]."""

    def __init__(self, rows: list[dict[str, Any]], segments: bool):
        super().__init__()
        self.segments = segments
        levels = []
        for row in rows:
            if "pool" in row:
                level = nn.MaxPool2d(**row["pool"])
            elif "plain" in row:
                level = Plain(row["plain"], exact=row["name"] == "head" or row is rows[-1])
            else:
                level = nn.Sequential()
                for block in row["blocks"]:
                    level.add_module(block["name"], Block(block))
            self.add_module(row["name"], level)
            levels.append((row["name"], level))
        self.levels = [name for name, _ in levels]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name in self.levels:
            if name == "head" and not self.segments:
                x = x.float().mean((2, 3), keepdim=True)
            x = getattr(self, name)(x)
        return x if self.segments else x[:, :, 0, 0]


class ThinStrided(nn.Conv2d):
    """A strided 1x1 convolution that strides first, see `corrupts`."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight, self.bias)


def corrupts(inputs: int, kernel: int, stride: int) -> bool:
    """Whether oneDNN writes past its memory in the gradient by the kernel (uxlfoundation/oneDNN,
    issue 6035). No published network is so narrow."""
    return DEVICE.type == "cpu" and kernel == 1 and stride > 1 and inputs < 16


def conv2d(conv: dict[str, Any]) -> nn.Conv2d:
    thin = corrupts(conv["inputs"], conv["kernel"], conv["stride"])
    return (ThinStrided if thin else nn.Conv2d)(
        conv["inputs"],
        conv["outputs"],
        conv["kernel"],
        stride=conv["stride"],
        padding=conv["padding"],
        dilation=conv["dilation"],
        bias=conv["bias"],
    )


class Case:
    """What `cases.Case.for_peer` tells, on the device: the network, its batch and its loss."""

    def __init__(self, told: dict[str, Any]):
        self.told = told
        set_precision(told["dtype"])
        torch.manual_seed(0)
        network: Any = Network(told["rows"], told["segments"])
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.network = network.to(DEVICE, memory_format=torch.channels_last)
        batch, size, classes = told["batch"], told["size"], told["classes"]
        images = integers((batch, told["side"], told["side"], 3), 256, "uint8", 0)
        self.images = torch.from_numpy(images).to(DEVICE)
        if told["segments"]:
            target = integers((batch, size, size), classes, "uint8", 1).astype("int64")
        else:
            target = integers((batch,), classes, "int32", 1).astype("int64")
        self.target = torch.from_numpy(target).to(DEVICE)
        mean, std = (torch.tensor(told[name], device=DEVICE) for name in ("mean", "std"))
        self.mean, self.std = (v.view(1, 3, 1, 1) for v in (mean, std))

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Float32 of uint8 [N, H, W, 3]: of the image, or of every pixel."""
        x = images.permute(0, 3, 1, 2).float()
        if self.told["bgr"]:
            x = (x - 255 * self.mean).flip(1).contiguous(memory_format=torch.channels_last)
        else:
            x = (x / 255 - self.mean) / self.std
        with torch.autocast(DEVICE.type, torch.bfloat16, self.told["dtype"] == "bfloat16"):
            scores = self.network(x).float()
        if not self.told["segments"]:
            return scores
        factor, size = self.told["stride"], self.told["size"]
        scores = nn.functional.interpolate(
            scores, scale_factor=factor, mode="bilinear", align_corners=False
        )
        return scores[:, :, :size, :size]

    def loss(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(self.scores(images), self.target)

    @property
    def facts(self) -> dict[str, Any]:
        return {"parameters": sum(p.numel() for p in self.network.parameters())}


def train(told: dict[str, Any], compiled: bool) -> Work:
    """A step of SGD; with `compiled` the loss goes through torch.compile."""
    case = Case(told)
    case.network.train()
    optimizer = torch.optim.SGD(
        case.network.parameters(), RATE, momentum=0.9, weight_decay=1e-4, fused=True
    )
    loss_of = torch.compile(case.loss) if compiled else case.loss

    def call() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(case.images)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return Work(call, float, case.facts)


def inference(told: dict[str, Any], compiled: bool) -> Work:
    """From uint8 images to the classes' scores, or to the class of every pixel."""
    case = Case(told)
    case.network.eval()

    def apply(images: torch.Tensor) -> torch.Tensor:
        scores = case.scores(images)
        return scores.argmax(1) if told["segments"] else scores

    function = torch.compile(apply) if compiled else apply

    @torch.inference_mode()
    def call() -> torch.Tensor:
        return function(case.images)

    return Work(call, facts=case.facts)


def product(dtype: str, side: int) -> Work:
    """As `ours.product`."""
    set_precision(dtype)
    a, b = (on_device(noise((side, side), seed), dtype) for seed in (0, 1))
    result = torch.empty_like(a)
    return Work(lambda: torch.mm(a, b, out=result))


def copy(dtype: str, count: int) -> Work:
    """As `ours.copy`."""
    source = torch.ones(count, dtype=storage(dtype), device=DEVICE)
    target = torch.zeros_like(source)
    return Work(lambda: torch.neg(source, out=target))


def convolution(derivative: str, dtype: str, batch: int, shape: dict[str, int]) -> Work:
    """As `ours.convolution`. Raises: ValueError for what crashes."""
    if corrupts(shape["inputs"], shape["kernel"], shape["stride"]):
        raise ValueError("oneDNN writes past its memory in so narrow a layer; give a greater width")
    set_precision(dtype)
    height, width, size = shape["height"], shape["width"], shape["kernel"]
    x = images_last(noise((batch, height, width, shape["inputs"]), 0), dtype)
    kernel = noise((size, size, shape["inputs"], shape["outputs"]), 1)
    weight = on_device(kernel, dtype).permute(3, 2, 0, 1)
    weight = weight.contiguous(memory_format=torch.channels_last)
    stride, dilation, padding = ([shape[name]] * 2 for name in ("stride", "dilation", "padding"))

    def forward() -> torch.Tensor:
        return nn.functional.conv2d(x, weight, None, stride, padding, dilation)

    if derivative == "forward":
        return Work(torch.inference_mode()(forward), partial(some, order=(0, 2, 3, 1)))
    count, channels, *cells = forward().shape
    g = images_last(noise((count, *cells, channels), 2), dtype)
    by_input = derivative == "input"
    mask = [by_input, not by_input, False]

    def backward() -> torch.Tensor:
        found = torch.ops.aten.convolution_backward(
            g, x, weight, None, stride, padding, dilation, False, [0, 0], 1, mask
        )
        return found[0 if by_input else 1]

    order = (0, 2, 3, 1) if by_input else (2, 3, 1, 0)
    return Work(backward, partial(some, order=order))


def images_last(values: Any, dtype: str) -> torch.Tensor:
    """[N, H, W, C] as [N, C, H, W] in the same order of memory."""
    return on_device(values, dtype).permute(0, 3, 1, 2)


def on_device(values: Any, dtype: str) -> torch.Tensor:
    return torch.from_numpy(values).to(DEVICE, storage(dtype))


def some(result: torch.Tensor, order: tuple[int, ...]) -> list[float]:
    """As ours: of the result with its axes in the order that ours has."""
    flat = result.float().permute(order).reshape(-1).cpu().numpy()
    return flat[spread_over(flat.size)].tolist()


def storage(dtype: str) -> torch.dtype:
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


def set_precision(dtype: str) -> None:
    """A GPU may take TF32 for float32."""
    torch.backends.cudnn.benchmark = True
    if DEVICE.type == "cuda":
        torch.set_float32_matmul_precision("high" if dtype == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = dtype == "tf32"


def wait(result: Any) -> Any:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return result


def device() -> tuple[str, str]:
    if DEVICE.type == "cuda":
        return torch.cuda.get_device_name(), "gpu"
    return "cpu", "cpu"


def device_peak() -> int | None:
    return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


if __name__ == "__main__":
    makers: dict[str, Callable[..., Work]] = {
        "product": product,
        "copy": copy,
        "convolution": convolution,
        "train": train,
        "inference": inference,
    }
    with contextlib.suppress(KeyboardInterrupt):
        serve(makers, wait, device, device_peak)
