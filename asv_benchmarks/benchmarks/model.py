"""Whole models: the demo's network in float and in 8 bits, in qcy and in onnxruntime."""

import numpy as np

import qcy
from qcy import demo
from qcy.nn import Calibrator, compare_quantized_model

from .peers import onnxruntime_session
from .ratio import ratio


class Demo:
    """The demo's network on one thread."""

    params = [1, 64]
    param_names = ["batch"]

    def setup(self, batch):
        self.model = demo.load_model()
        calibration, images, _ = demo.load_images()
        self.quantized, _ = demo.quantize(self.model, calibration, progress=False)
        self.x = images[:batch]
        self.threads = qcy.threads(1)
        self.threads.__enter__()

    def teardown(self, batch):
        self.threads.__exit__(None, None, None)

    def time_quantized(self, batch):
        self.quantized(self.x)

    def peakmem_quantized(self, batch):
        self.quantized(self.x)

    def peakmem_setup_only(self, batch):
        """What `peakmem_quantized` would show if a run needed no memory."""

    def track_speedup_over_float(self, batch):
        return ratio(lambda: self.model(self.x), lambda: self.quantized(self.x))

    track_speedup_over_float.unit = "times qcy float32"

    def track_speedup_over_onnxruntime(self, batch):
        session = onnxruntime_session(self.model, self.x.shape[1:])
        return ratio(lambda: session(self.x), lambda: self.quantized(self.x))

    track_speedup_over_onnxruntime.unit = "times onnxruntime float32"


class DemoQuality:
    """What the 8 bits cost: accuracy, agreement, bytes."""

    def setup(self):
        self.model = demo.load_model()
        calibration, images, labels = demo.load_images()
        quantized, _ = demo.quantize(self.model, calibration, progress=False)
        self.report = compare_quantized_model(
            quantized, self.model, images, labels, batch_sizes=()
        )

    def track_accuracy_drop(self):
        return 100 * (self.report.float_accuracy - self.report.quantized_accuracy)

    track_accuracy_drop.unit = "points"

    def track_agreement(self):
        return 100 * self.report.agreement

    track_agreement.unit = "%"

    def track_bytes_ratio(self):
        return self.report.float_bytes / self.report.quantized_bytes

    track_bytes_ratio.unit = "times smaller"


class Calibration:
    """Calibration must not need more memory for more batches."""

    params = [4, 40]
    param_names = ["n_batches"]

    def setup(self, n_batches):
        self.model = demo.load_model()
        self.batch = np.ones((8, 1, 28, 28), np.float32)

    def peakmem_calibrate(self, n_batches):
        calibrator = Calibrator(self.model)
        for _ in range(n_batches):
            calibrator.observe(self.batch)
