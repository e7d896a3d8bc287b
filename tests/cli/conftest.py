"""Running verbs as a person does, and reading what they say."""

# Lightning logs to what is standard error when it is imported: first inside of a test, that would
# be the test's own, which is closed when another one trains.
import lightning.pytorch  # noqa: F401
import pytest

from pathology.cli import main


@pytest.fixture
def pathology(capsys):
    """Runs a verb; returns exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(a) for a in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(pathology):
    """Runs a verb that must fail with exit code 2 and one line; returns the line."""

    def run(*arguments):
        code, _, err = pathology(*arguments)
        lines = [line for line in err.splitlines() if line.startswith("pathology")]
        assert code == 2, err
        assert len(lines) == 1, err
        assert "Traceback" not in err
        return lines[0]

    return run
