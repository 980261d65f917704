"""Trains three networks as people have them, and exports them to ONNX as people do.

    python docs/training/fashion_onnx.py mobilenet --out fashion_mobilenet.onnx
    python docs/training/fashion_onnx.py resnet --out fashion_resnet.onnx --old
    python docs/training/fashion_onnx.py vit --out fashion_vit.onnx

Written for torch 2.13.0 on one CPU thread, with onnx and onnxscript.  Like the demo's network they
take pixel / 255 as float32, shape (N, 1, 28, 28), return ten logits, and see the test images once,
after the last epoch; their hyperparameters were chosen with --holdout 5000.
"""

import argparse
import os
import time

import fashion_cnn
import fashion_data
import onnx
import torch
from torch import nn


def conv_bn(n_in, n_out, kernel=3, stride=1, groups=1):
    """A convolution that keeps the size, or divides it by the stride, and a batch norm."""
    conv = nn.Conv2d(n_in, n_out, kernel, stride, kernel // 2, groups=groups, bias=False)
    return conv, nn.BatchNorm2d(n_out)


class InvertedResidual(nn.Module):
    """MobileNetV2's block: widen, convolve each channel by itself, narrow without activation."""

    def __init__(self, n_in, n_out, stride, expand):
        super().__init__()
        wide = n_in * expand
        widen = [*conv_bn(n_in, wide, 1), nn.ReLU6()] if expand > 1 else []
        self.conv = nn.Sequential(
            *widen, *conv_bn(wide, wide, 3, stride, groups=wide), nn.ReLU6(),
            *conv_bn(wide, n_out, 1),
        )
        self.is_residual = stride == 1 and n_in == n_out

    def forward(self, x):
        return x + self.conv(x) if self.is_residual else self.conv(x)


class MobileNet(nn.Module):
    """MobileNetV2, smaller: 28 x 28, 14 x 14, then 7 x 7."""

    BLOCKS = [  # factor by which channels are widened, output channels, stride of the first, number
        (1, 16, 1, 1),
        (4, 24, 2, 2),
        (4, 40, 2, 3),
        (4, 64, 1, 1),
    ]

    def __init__(self):
        super().__init__()
        layers, n = [*conv_bn(1, 16), nn.ReLU6()], 16
        for expand, n_out, stride, number in self.BLOCKS:
            for i in range(number):
                layers.append(InvertedResidual(n, n_out, stride if i == 0 else 1, expand))
                n = n_out
        self.features = nn.Sequential(*layers, *conv_bn(n, 256, 1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.1), nn.Linear(256, 10))

    def forward(self, x):
        x = self.features(x)
        x = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class BasicBlock(nn.Module):
    """ResNet's block: two convolutions, and the input added."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(n_in, n_out, 3, stride)
        self.conv2, self.bn2 = conv_bn(n_out, n_out)
        self.relu = nn.ReLU(inplace=True)
        is_same = stride == 1 and n_in == n_out
        self.downsample = None if is_same else nn.Sequential(*conv_bn(n_in, n_out, 1, stride))

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """ResNet, smaller: 28 x 28, after the pooling 14 x 14, then 7 x 7."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(1, 16)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = nn.Sequential(BasicBlock(16, 32, 1), BasicBlock(32, 32, 1))
        self.layer2 = nn.Sequential(BasicBlock(32, 64, 2), BasicBlock(64, 64, 1))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Attention(nn.Module):
    """Multi-head self-attention in plain products."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        attention = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1)
        return self.proj((attention @ v).transpose(1, 2).reshape(b, n, c))


class Block(nn.Module):
    """A transformer's block, normalized beforehand."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer: 7 x 7 patches of 4 x 4 pixels, and a class token."""

    def __init__(self, width=64, depth=3, heads=4, hidden=192):
        super().__init__()
        self.patch = nn.Conv2d(1, width, kernel_size=4, stride=4)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(0.02 * torch.randn(1, 50, width))
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        token = self.token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, x], dim=1) + self.position
        return self.head(self.norm(self.blocks(x))[:, 0])


#: The network, epochs, and the largest learning rate.
NETWORKS = {
    "mobilenet": (MobileNet, 7, 0.01),
    "resnet": (ResNet, 9, 0.01),
    "vit": (ViT, 11, 0.003),
}


def export(model, path, dynamo):
    """Write an ONNX file by one of the two exporters that PyTorch has, with their own settings.

    But all in one file, and without the trace of calls that the newer one notes at each node: that
    names the folders of the machine, and changes nothing.
    """
    model = model.eval().to(memory_format=torch.contiguous_format)
    example = (torch.zeros(2, 1, 28, 28),)
    names = {"input_names": ["image"], "output_names": ["logits"]}
    if dynamo:
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(
            model, example, path, dynamo=True, external_data=False, dynamic_shapes=shapes, **names
        )
        made = onnx.load(path)
        for node in made.graph.node:
            kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
        onnx.save(made, path)
    else:
        axes = {"image": {0: "batch"}, "logits": {0: "batch"}}
        torch.onnx.export(model, example, path, dynamo=False, dynamic_axes=axes, **names)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", choices=NETWORKS)
    parser.add_argument("--data", default=fashion_data.DEBIAN, help="folder (default %(default)s)")
    parser.add_argument("--epochs", type=int, help="instead of those that were chosen")
    parser.add_argument("--lr", type=float, help="instead of the one that was chosen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="ONNX file to write")
    parser.add_argument("--old", action="store_true", help="export by PyTorch's older exporter")
    parser.add_argument("--holdout", type=int, default=0, metavar="N", help="as in fashion_cnn.py")
    args = parser.parse_args()
    kind, epochs, lr = NETWORKS[args.network]

    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    images, labels = fashion_cnn.tensors(*fashion_data.load(args.data, "train"))
    n = len(images) - args.holdout
    model = kind().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {n} training images")
    start = time.perf_counter()
    fashion_cnn.train(model, images[:n], labels[:n], args.epochs or epochs, args.lr or lr)
    print(f"{time.perf_counter() - start:.0f} s")
    if args.holdout:
        images, labels = images[n:], labels[n:]
    else:
        images, labels = fashion_cnn.tensors(*fashion_data.load(args.data, "t10k"))
    right = fashion_cnn.correct(model, images, labels)
    print(f"accuracy on {len(right)} images: {right.double().mean():.4f}")
    if args.out:
        export(model, args.out, dynamo=not args.old)
        print(f"{args.out}: {os.path.getsize(args.out)} bytes")


if __name__ == "__main__":
    main()
