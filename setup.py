"""Puts configs/ and constraints.txt into the package when it is built; see pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """Copies what lies beside the packages; an editable install finds it there."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "pathology"
        shutil.rmtree(package / "configs", ignore_errors=True)  # a former build's
        shutil.copytree("configs", package / "configs")
        shutil.copy2("constraints.txt", package)


setup(cmdclass={"build_py": BuildWithConfigs})
