"""Values with meaning: the generic tensor, and 8-bit codes with their parameters.

    generic.pyx       Tensor: ten dtypes, one C-ordered block
    quantization.py   QuantizationParams and QuantizationScheme
    quantized.py      QuantizedTensor, and `quantize`
    tables.py         functions of one code as 256 entries
    elementwise.py linalg.py conv.py activations.py pooling.py
                      what a QuantizedTensor can do, by family
"""
