"""What a command that was run has to say."""

from collections.abc import Callable

Run = Callable[..., tuple[int, str, str]]


def refused(run: Run, *arguments: object) -> str:
    """The one line with which a command refuses its arguments."""
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("clickseg: ")
    return err
