"""Import it before a detector is built: its parameters are float64 then.

Images become what mean and standard deviation are, which are float64 as well.
"""

import torch

torch.set_default_dtype(torch.float64)
