"""Whole models: the demo's network in float and in 8 bits, in qcy and in onnxruntime."""

import numpy as np

import qcy
from qcy import demo
from qcy.nn import Calibrator, compare_quantized_model, quantize_model

from .networks import NETWORKS
from .peers import onnxruntime_session
from .ratio import ratio


class Demo:
    """The demo's network on one thread."""

    params = [1, 64]
    param_names = ["batch"]

    def setup_cache(self):
        calibration, _, _ = demo.load_images()
        demo.quantize(demo.load_model(), calibration, progress=False)[0].save("demo.qcy")

    def setup(self, batch):
        self.model, self.quantized = demo.load_model(), qcy.load("demo.qcy")
        self.x = demo.load_images()[1][:batch]
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


class Networks:
    """Known architectures with random weights, bound: what a run costs, and what it needs."""

    params = [
        "mlp 1", "mlp 32", "mlp 256", "lenet 1", "lenet 32", "resnet18 1", "mobilenetv2 1",
        "encoder 1",
    ]
    param_names = ["network and batch"]
    timeout = 300       # of the cache too

    def setup_cache(self):
        """Quantize each once, into files: so no calibration counts in what follows."""
        rng = np.random.default_rng(0)
        for name, (build, shape) in NETWORKS.items():
            model = build()
            data = rng.standard_normal((2, *shape), np.float32)
            model.save(f"{name}_float.qcy")
            quantize_model(model, data, progress=False).save(f"{name}.qcy")

    def setup(self, network):
        name, batch = network.split()
        self.x = np.ones((int(batch), *NETWORKS[name][1]), np.float32)
        self.call = qcy.load(f"{name}.qcy").bind(self.x, n_threads=1)

    def time_bound(self, network):
        self.call()

    def peakmem_bound(self, network):
        self.call()

    def track_speedup_over_float(self, network):
        model = qcy.load(f"{network.split()[0]}_float.qcy")
        with qcy.threads(1):
            return ratio(lambda: model(self.x), self.call, repeats=10)

    track_speedup_over_float.unit = "times qcy float32"


class DemoQuality:
    """What the 8 bits cost: accuracy, agreement, bytes."""

    def setup_cache(self):
        model = demo.load_model()
        calibration, images, labels = demo.load_images()
        quantized, _ = demo.quantize(model, calibration, progress=False)
        return compare_quantized_model(quantized, model, images, labels, batch_sizes=())

    def track_accuracy_drop(self, report):
        return 100 * (report.float_accuracy - report.quantized_accuracy)

    track_accuracy_drop.unit = "points"

    def track_agreement(self, report):
        return 100 * report.agreement

    track_agreement.unit = "%"

    def track_bytes_ratio(self, report):
        return report.float_bytes / report.quantized_bytes

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


class CalibrationOfMobileNet:
    """The same of MobileNetV2 on images of 224x224; tests/nn/test_memory.py goes to a thousand."""

    params = [10, 100]
    param_names = ["n_images"]
    timeout = 300

    def setup(self, n_images):
        self.calibrator = Calibrator(NETWORKS["mobilenetv2"][0]())
        self.batch = np.ones((2, 224, 224, 3), np.float32)

    def peakmem_calibrate(self, n_images):
        for _ in range(n_images // 2):
            self.calibrator.observe(self.batch)
