"""Section `sweep` of `params.yaml`. No stage imports this module, so nothing gets stale by it."""

from typing import Self

from pydantic import model_validator

from bench.config import NonNegative, Params, Positive


class SweepParams(Params):
    """What one running stage needs of a machine; parts of a CPU or of a GPU are allowed."""

    cpus: Positive
    gpus: NonNegative
    memory_gb: Positive

    @model_validator(mode="after")
    def _gpus_are_parts_of_one_or_whole(self) -> Self:
        if self.gpus > 1 and self.gpus % 1:
            raise ValueError(f"gpus: found {self.gpus}, wanted a part of one GPU, or whole ones")
        return self
