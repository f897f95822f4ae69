"""Stage 1 with a model sharded over processes (FSDP), on CPUs: `accelerate launch` starts this file.

accelerate offers FSDP only to processes that have a GPU, torch offers it to all. The processes started here claim to
have a GPU; everything else, from the command line to the saved weights, is what a machine with GPUs does.
"""

import os
import sys

import sft_tulu
from accelerate import DistributedType, PartialState

from domain_tokens.training import stage
from domain_tokens.training.sharding import whole_weights


def say_what_is_held(trainer, whole_weights=whole_weights):
    parameters = list(trainer.model.parameters())
    held = sum(parameter.to_local().numel() for parameter in parameters)
    print(f"this process holds {held / sum(parameter.numel() for parameter in parameters):.0%} of the parameters")
    return whole_weights(trainer)


PartialState._prepare_backend = lambda self, cpu, sagemaker, backend=None: ("gloo", DistributedType.MULTI_GPU)
os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
stage.whole_weights = say_what_is_held
sft_tulu.main([*sys.argv[1:], "use_cpu=false"])
