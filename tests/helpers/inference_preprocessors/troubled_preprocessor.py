"""A preprocessor with which things happen to the cases that the variable TROUBLE names: "b=die c=sleep"."""

import os
import signal
import time

from nnunet_lite.preprocessing.default_preprocessor import DefaultPreprocessor


class ErrorThatDoesNotTravel(Exception):
    """Cannot be made from its message, so that no other process can read it."""

    def __init__(self, *, code):
        super().__init__(f"code {code}")


class TroubledPreprocessor(DefaultPreprocessor):
    """Does what TROUBLE says, then its work."""

    def run_case(self, image_files, *args, **kwargs):
        troubles = dict(word.split("=") for word in os.environ.get("TROUBLE", "").split())
        trouble = troubles.get(os.path.basename(image_files[0]).removesuffix("_0000.nii.gz"))
        if trouble == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        elif trouble == "sleep":
            print("sleeps", flush=True)
            time.sleep(120)
        elif trouble == "memory":
            raise MemoryError
        elif trouble == "odd":
            raise ErrorThatDoesNotTravel(code=3)
        return super().run_case(image_files, *args, **kwargs)
