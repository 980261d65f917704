"""Networks that everybody knows, with random weights: as deep and as wide as the real ones."""

import numpy as np

from qcy.nn import (
    GELU, Add, Attention, Conv2D, Dense, Flatten, GlobalAvgPool2D, LayerNorm, MaxPool2D, Model,
    ReLU, ReLU6,
)


class Builder:
    """Appends layers, and knows how many channels come out of each."""

    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.nodes = []
        self.channels = {}

    def add(self, layer, *inputs, channels=None):
        """Append a layer; return its name."""
        name = f"{type(layer).__name__.lower()}_{len(self.nodes)}"
        self.nodes.append((name, layer, inputs))
        self.channels[name] = channels or self.channels[inputs[0]]
        return name

    def weight(self, n_in, *shape):
        scale = np.float32((2 / n_in) ** 0.5)
        return self.rng.standard_normal(shape, np.float32) * scale

    def bias(self, n):
        return np.float32(0.05) * self.rng.standard_normal(n, np.float32)

    def dense(self, x, n_in, n_out, activation=None):
        y = self.add(Dense(self.weight(n_in, n_in, n_out), self.bias(n_out)), x, channels=n_out)
        return self.add(activation(), y) if activation else y

    def conv(self, x, n_out, kernel, stride=1, padding=None, groups=1, activation=None):
        n_in = self.channels[x] // groups
        weight = self.weight(n_in * kernel * kernel, n_out, n_in, kernel, kernel)
        padding = kernel // 2 if padding is None else padding
        layer = Conv2D(
            weight, self.bias(n_out), stride=stride, padding=padding, groups=groups, layout="NHWC"
        )
        y = self.add(layer, x, channels=n_out)
        return self.add(activation(), y) if activation else y

    def pool(self, x, size, stride, padding=0):
        return self.add(MaxPool2D(size, stride, padding, layout="NHWC"), x)

    def head(self, x, n_classes):
        """Mean of the image, then a dense layer."""
        channels = self.channels[x]
        x = self.add(Flatten(layout="NHWC"), self.add(GlobalAvgPool2D(layout="NHWC"), x))
        self.dense(x, channels, n_classes)


def mlp():
    b = Builder()
    x = b.dense("input", 784, 512, ReLU)
    b.dense(b.dense(x, 512, 256, ReLU), 256, 10)
    return Model(b.nodes)


def lenet():
    b = Builder()
    b.channels["input"] = 1
    x = b.pool(b.conv("input", 6, 5, activation=ReLU), 2, 2)
    x = b.pool(b.conv(x, 16, 5, padding=0, activation=ReLU), 2, 2)
    x = b.add(Flatten(layout="NHWC"), x)
    x = b.dense(x, 400, 120, ReLU)
    b.dense(b.dense(x, 120, 84, ReLU), 84, 10)
    return Model(b.nodes)


def resnet18():
    b = Builder()
    b.channels["input"] = 3
    x = b.pool(b.conv("input", 64, 7, 2, activation=ReLU), 3, 2, 1)
    for n, first_stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        for stride in (first_stride, 1):
            y = b.conv(b.conv(x, n, 3, stride, activation=ReLU), n, 3)
            is_same = stride == 1 and b.channels[x] == n
            x = b.add(ReLU(), b.add(Add(), y, x if is_same else b.conv(x, n, 1, stride)))
    b.head(x, 1000)
    return Model(b.nodes)


def mobilenetv2():
    b = Builder()
    b.channels["input"] = 3
    x = b.conv("input", 32, 3, 2, activation=ReLU6)
    for wider, n, times, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(times):
            stride, inner = (first_stride if i == 0 else 1), b.channels[x] * wider
            y = b.conv(x, inner, 1, activation=ReLU6) if wider > 1 else x
            y = b.conv(y, inner, 3, stride, groups=inner, activation=ReLU6)
            y = b.conv(y, n, 1)
            x = b.add(Add(), y, x) if stride == 1 and b.channels[x] == n else y
    b.head(b.conv(x, 1280, 1, activation=ReLU6), 1000)
    return Model(b.nodes)


def encoder():
    """Six layers of a small transformer: 384 features, 12 heads."""
    b = Builder()
    b.channels["input"] = 384
    x = "input"
    for _ in range(6):
        heads = [b.dense(x, 384, 384) for _ in range(3)]
        y = b.dense(b.add(Attention(12), *heads), 384, 384)
        x = b.add(LayerNorm(np.ones(384), np.zeros(384)), b.add(Add(), x, y))
        y = b.dense(b.dense(x, 384, 1536, GELU), 1536, 384)
        x = b.add(LayerNorm(np.ones(384), np.zeros(384)), b.add(Add(), x, y))
    return Model(b.nodes)


#: Each with the shape of one sample.
NETWORKS = {
    "mlp": (mlp, (784,)), "lenet": (lenet, (28, 28, 1)), "resnet18": (resnet18, (224, 224, 3)),
    "mobilenetv2": (mobilenetv2, (224, 224, 3)), "encoder": (encoder, (128, 384)),
}
