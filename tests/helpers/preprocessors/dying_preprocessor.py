"""A preprocessor whose process is killed while it works on one case, as a system out of memory would do it."""

import os
import signal
from pathlib import Path

from nnunet_lite.preprocessing.default_preprocessor import DefaultPreprocessor


class DyingPreprocessor(DefaultPreprocessor):
    """Dies of SIGKILL on case_02 as often as the file named by DEATHS says."""

    def run_case(self, image_files, *args, **kwargs):
        if "case_02" in str(image_files[0]):
            file = Path(os.environ["DEATHS"])
            left = int(file.read_text())
            if left:
                file.write_text(str(left - 1))
                os.kill(os.getpid(), signal.SIGKILL)
        return super().run_case(image_files, *args, **kwargs)
