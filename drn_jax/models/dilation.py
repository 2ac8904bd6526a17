"""A front end with a context module behind it, and the nets that Yu & Koltun (2016) published."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from drn_jax.models.context import Context, ContextModule
from drn_jax.models.inputs import Channels
from drn_jax.models.layers import Extent, cut
from drn_jax.models.network import Network, behind
from drn_jax.models.stages import Stage, layers

UPSAMPLING = "ctx_upsample"
"""The transposed convolution of Dilation10."""


@dataclass(frozen=True)
class Published:
    """What a published net is made of, besides the VGG front end."""

    classes: int
    bgr_mean: Channels
    """Of its training images, 0 to 255."""
    context: Context
    front_end: bool = True
    """False: the context module alone, for maps of `classes` channels."""
    upsampling: int = 0
    """Factor of the transposed convolution at the end; 0: none."""


_VOC = (102.93, 111.36, 116.52)
_CAMVID = (110.703, 108.778, 105.412)
_KITTI = (96.194, 95.551, 91.347)
_CITYSCAPES = (72.39, 82.91, 73.16)

_LARGE = Context(8, "large", "once")
_BASIC_7, _BASIC_8, _BASIC_10 = (Context(layers, "basic", "layer") for layers in (7, 8, 10))

PUBLISHED: Mapping[str, Published] = {
    "dilation8_pascal_voc": Published(21, _VOC, _LARGE),
    "dilation8_camvid": Published(11, _CAMVID, _BASIC_8),
    "dilation7_kitti": Published(11, _KITTI, _BASIC_7),
    "dilation10_cityscapes": Published(19, _CITYSCAPES, _BASIC_10, upsampling=8),
    "context8_pascal_voc": Published(21, _VOC, _LARGE, front_end=False),
    "context8_camvid": Published(11, _CAMVID, _BASIC_8, front_end=False),
    "context7_kitti": Published(11, _KITTI, _BASIC_7, front_end=False),
    "context10_cityscapes": Published(19, _CITYSCAPES, _BASIC_10, front_end=False),
}
"""The released nets (fyu/dilation). That for Pascal VOC has the large module, the others the basic
one; no code to train the large one was released."""


class ContextNetwork(nn.Module):
    """A network and the context module that refines its class map.

    Attributes:
      front_end: any `Network`; its parameters lie under `front_end`.
      context: a module for as many channels as that has classes; its parameters: `context`.
      upsampling: factor of the fixed bilinear transposed convolution behind both, or 0.
    """

    front_end: Network
    context: ContextModule
    upsampling: int = 0

    @property
    def num_classes(self) -> int:
        """Channels of the class map."""
        return self.front_end.num_classes

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The rows of the front end before its classifier, as `Network.stages`."""
        return self.front_end.stages

    @property
    def table(self) -> tuple[Stage, ...]:
        """All rows: front end, classifier, context module."""
        return (*self.front_end.table, *self.context.table)

    @nn.compact
    def __call__(
        self, images: jax.Array, train: bool = False, valid: Extent = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classify every cell of prepared images, see `Network`, also for `valid`.

        Returns:
          logits: float32 [N, classes], the mean over the refined map.
          features: the maps of both parts; `front_end`, the class map [N, h, w, classes];
            `context` and `logits_2d`, the same refined; with upsampling `pixel_logits`
            [N, h * upsampling, w * upsampling, classes]. Float32, all before any softmax.
        """
        _, features = self.front_end(images, train, valid)
        valid = behind(valid, layers(*self.stages))
        logits, refined = self.context(features.pop("logits_2d"), train, valid)
        features |= refined
        if self.upsampling:
            layer = FixedUpsampling(self.upsampling, name=UPSAMPLING)
            if self.context.context.padding == "none":
                valid = behind(valid, layers(*self.context.table))
            features["pixel_logits"] = layer(cut(features["context"], valid))
        return logits, features


class FixedUpsampling(nn.Module):
    """A channelwise transposed convolution by an even factor s: kernel 2s, stride s, pad s/2, no
    bias, never trained.

    Its kernel [2s, 2s, 1, C] begins bilinear. It is a parameter, because published weights bring
    one, but no gradient reaches it (the published learning rate is 0).
    """

    factor: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, h, w, C] -> [N, h*s, w*s, C]; beyond the map lies 0."""
        channels, s = x.shape[-1], self.factor

        def bilinear(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
            del key
            return jnp.broadcast_to(jnp.asarray(bilinear_kernel(s), dtype)[:, :, None, None], shape)

        kernel = self.param("kernel", bilinear, (2 * s, 2 * s, 1, channels), jnp.float32)
        pad = 2 * s - 1 - s // 2
        return lax.conv_general_dilated(
            x,
            lax.stop_gradient(kernel)[::-1, ::-1].astype(x.dtype),
            window_strides=(1, 1),
            padding=((pad, pad), (pad, pad)),
            lhs_dilation=(s, s),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
        )


def bilinear_kernel(factor: int) -> np.ndarray:
    """The kernel of bilinear upsampling, float32 [2*factor, 2*factor]: a tent each way."""
    tent = 1 - np.abs((np.arange(2 * factor) + 0.5) / factor - 1)
    return np.outer(tent, tent).astype(np.float32)
