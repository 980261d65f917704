"""Stand-in."""
import numpy as np
from qcy.tensor.quantization import QuantizationParams
class MinMaxObserver:
    def __init__(self, axis=None):
        self.axis=axis; self.low=None
    def observe(self,x):
        x=np.asarray(x,np.float32)
        ax=None if self.axis is None else tuple(i for i in range(x.ndim) if i!=self.axis)
        l,h=x.min(axis=ax),x.max(axis=ax)
        self.low,self.high=(l,h) if self.low is None else (np.minimum(l,self.low),np.maximum(h,self.high))
    def range(self): return self.low,self.high
    def params(self,dtype="uint8",scheme=None):
        return QuantizationParams.from_range(self.low,self.high,dtype,scheme,self.axis)
    histogram=None
MovingAverageObserver=PercentileObserver=EntropyObserver=MSEObserver=MinMaxObserver
