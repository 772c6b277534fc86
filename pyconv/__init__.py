"""torch.nn.Conv2d for NumPy arrays, on a small compiled CPU backend.

The layers are `Conv1d` and `Conv2d`, the functions `conv1d` and `conv2d`; names, arguments and their order are
torch's. `show_config` tells what this installation runs on.
"""

from pyconv._config import show_config
from pyconv._denormals import flush_denormals
from pyconv._dispatch import available_isas, isa
from pyconv._errors import ConvError, ConvTypeError
from pyconv._threads import get_num_threads, num_threads, set_num_threads
from pyconv._version import VERSION
from pyconv.functional import conv1d, conv2d
from pyconv.modules import Conv1d, Conv2d

__all__ = [
    "Conv1d",
    "Conv2d",
    "ConvError",
    "ConvTypeError",
    "available_isas",
    "conv1d",
    "conv2d",
    "flush_denormals",
    "get_num_threads",
    "isa",
    "num_threads",
    "set_num_threads",
    "show_config",
]

__version__ = VERSION
