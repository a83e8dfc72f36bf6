"""The reference's functions on a CUDA GPU: Numba kernels of our own, cuBLAS for the products.

Same file names, same function names and same arguments as `tinyalex.reference`; activations and
parameters are float32. Each file opens with who computes what. `tinyalex.backend.Backend` is the
contract; `tinyalex.gpu.device` says where things run.
"""

from tinyalex.gpu.activation import (
    dropout,
    dropout_backward,
    relu,
    relu_backward,
    tanh,
    tanh_backward,
)
from tinyalex.gpu.augment import augment
from tinyalex.gpu.conv import (
    augment_conv2d,
    augment_conv2d_backward,
    conv2d,
    conv2d_backward,
    relu_conv2d,
    relu_conv2d_backward,
)
from tinyalex.gpu.device import (
    SIMULATOR,
    asarray,
    download,
    host_empty,
    synchronize,
    to_numpy,
    upload,
)
from tinyalex.gpu.linear import (
    linear,
    linear_backward,
    linear_relu_dropout,
    linear_relu_dropout_backward,
)
from tinyalex.gpu.loss import softmax_cross_entropy, softmax_cross_entropy_backward
from tinyalex.gpu.lrn import lrn, lrn_backward, lrn_map, lrn_map_backward
from tinyalex.gpu.pool import (
    avg_pool,
    avg_pool_backward,
    lrn_max_pool,
    lrn_max_pool_backward,
    max_pool,
    max_pool_backward,
    relu_lrn_max_pool,
    relu_lrn_max_pool_backward,
    relu_max_pool,
    relu_max_pool_backward,
)
from tinyalex.gpu.sgd import sgd_update

name = "simulated gpu (slow)" if SIMULATOR else "gpu"

fusions = {
    ("augment", "conv2d"): (augment_conv2d, augment_conv2d_backward),
    ("relu", "conv2d"): (relu_conv2d, relu_conv2d_backward),
    ("relu", "lrn", "max_pool"): (relu_lrn_max_pool, relu_lrn_max_pool_backward),
    ("relu", "max_pool"): (relu_max_pool, relu_max_pool_backward),
    ("lrn", "max_pool"): (lrn_max_pool, lrn_max_pool_backward),
    ("linear", "relu", "dropout"): (linear_relu_dropout, linear_relu_dropout_backward),
}
