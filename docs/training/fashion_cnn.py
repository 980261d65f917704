"""Trains the demo model, a float32 CNN for Fashion-MNIST, so that anyone can make it again.

    python docs/training/fashion_cnn.py --out fashion_cnn.npz

Written for torch 2.13.0 on one CPU thread.  The network takes pixel / 255 as float32 in [0, 1],
shape (N, 1, 28, 28), with no other normalisation, and returns ten logits.  The hyperparameters
were chosen with --holdout 5000, which never opens the test images; the final run trains on all
60,000 training images, and looks at the test images once, after the last epoch.
"""

import argparse
import time

import fashion_data
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

CONVS = [  # input channels, output channels, stride; all are 3 x 3 with padding 1, no bias
    (1, 16, 1),
    (16, 32, 2),
    (32, 32, 1),
    (32, 32, 1),
    (32, 64, 1),
    (64, 64, 1),
]
BATCH, MAX_LR, WEIGHT_DECAY = 128, 0.01, 0.05


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        for i, (n_in, n_out, stride) in enumerate(CONVS, 1):
            self.add_module(f"conv{i}", nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(n_out, eps=1e-5))
        self.dense = nn.Linear(CONVS[-1][1], 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))  # 28 x 28
        x = F.relu(self.bn2(self.conv2(x)))  # 14 x 14
        y = F.relu(self.bn3(self.conv3(x)))
        y = self.bn4(self.conv4(y))
        x = F.relu(x + y)
        x = F.max_pool2d(x, 2)  # 7 x 7
        x = F.relu(self.bn5(self.conv5(x)))
        x = F.relu(self.bn6(self.conv6(x)))
        return self.dense(x.mean((2, 3)))


def export(model):
    """The parameters as float32 arrays; convolutions are OIHW, dense.weight is (n_in, n_out)."""
    arrays = {}
    for i in range(1, len(CONVS) + 1):
        conv, bn = getattr(model, f"conv{i}"), getattr(model, f"bn{i}")
        arrays[f"conv{i}.weight"] = conv.weight
        arrays[f"bn{i}.gamma"] = bn.weight
        arrays[f"bn{i}.beta"] = bn.bias
        arrays[f"bn{i}.mean"] = bn.running_mean
        arrays[f"bn{i}.variance"] = bn.running_var
    arrays["dense.weight"] = model.dense.weight.T
    arrays["dense.bias"] = model.dense.bias
    return {k: np.ascontiguousarray(v.detach().numpy(), np.float32) for k, v in arrays.items()}


def augment(x):
    """Shifts each image by -2 .. 2 pixels both ways, at random.

    Mirroring the images as well made the held-out accuracy no better.
    """
    n = len(x)
    windows = F.pad(x[:, 0], (2, 2, 2, 2)).unfold(1, 28, 1).unfold(2, 28, 1)  # n, 5, 5, 28, 28
    dy, dx = torch.randint(5, (2, n))
    return windows[torch.arange(n), dy, dx][:, None]


def train(model, images, labels, epochs, max_lr=MAX_LR):
    decay = [p for p in model.parameters() if p.ndim > 1]  # weights, not biases or batch norm
    other = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": decay}, {"params": other, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    steps = len(images) // BATCH  # the last, incomplete batch of an epoch is left out
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, epochs * steps)
    for epoch in range(1, epochs + 1):
        start, total = time.perf_counter(), 0.0
        model.train()
        order = torch.randperm(len(images))
        for i in range(steps):
            batch = order[i * BATCH : (i + 1) * BATCH]
            x = augment(images[batch]).contiguous(memory_format=torch.channels_last)
            loss = F.cross_entropy(model(x), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - start
        print(f"epoch {epoch}: mean loss {total / steps:.4f}, {seconds:.1f} s", flush=True)


@torch.no_grad()
def correct(model, images, labels):
    """For each image, whether the largest logit is the right one."""
    model.eval()
    logits = torch.cat([model(x) for x in images.split(500)])
    return logits.argmax(1) == labels


def tensors(images, labels):
    x = images[:, None] / np.float32(255)
    return torch.from_numpy(x), torch.from_numpy(labels.astype(np.int64))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=fashion_data.DEBIAN, help="folder (default %(default)s)")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="npz file to write")
    parser.add_argument(
        "--holdout",
        type=int,
        default=0,
        metavar="N",
        help="test on the last N training images, not trained on, instead of the test images",
    )
    args = parser.parse_args()

    torch.set_num_threads(1)  # the order of sums, thus the result, depends on it
    torch.manual_seed(args.seed)
    images, labels = tensors(*fashion_data.load(args.data, "train"))
    n = len(images) - args.holdout
    model = Net().to(memory_format=torch.channels_last)
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {n} training images")
    train(model, images[:n], labels[:n], args.epochs)
    if args.out:
        np.savez(args.out, **export(model))

    if args.holdout:
        right = correct(model, images[n:], labels[n:])
    else:
        right = correct(model, *tensors(*fashion_data.load(args.data, "t10k")))
        print(f"accuracy on the first 2000 test images: {right[:2000].double().mean():.4f}")
    print(f"accuracy on all {len(right)}: {right.double().mean():.4f}")


if __name__ == "__main__":
    main()
