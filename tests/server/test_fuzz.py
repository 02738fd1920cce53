"""Whatever is sent, the answer is no 5xx, and one line where something was wrong."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from stand_ins import bright, make_ball, make_spec

import clickseg_infer as cs
from clickseg_infer.server.app import create_app
from clickseg_infer.server.guard import Guard
from clickseg_infer.server.labelling import Labelling
from clickseg_infer.server.opening import Demo
from clickseg_infer.server.registry import Limits, Opened, Registry
from clickseg_infer.server.scans import Scans

KEY = "the-session"
EXAMPLES = 12  # of each operation; seconds in all


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> schemathesis.BaseSchema:
    """The app's own OpenAPI document, whose session is one that is open."""
    path = tmp_path_factory.mktemp("scans") / "ball.nii.gz"
    cs.write_volume(path, make_ball(10.0, (12, 24, 24)))
    model = cs.Model(make_spec(), cs.FunctionEngine(bright))

    class OneSession(Registry):
        """Finds the same labelling whatever is asked for, or most sessions would not exist."""

        def find(self, key: str) -> Opened:
            return opened

    opened = Opened(Labelling(model, cs.read_volume(path), "ball.nii.gz"), path)
    app = create_app(Demo(model, Scans(path), OneSession(Limits(labellings=5))))
    guarded = Guard(app, frozenset({"testserver"}))
    return schemathesis.openapi.from_asgi("/openapi.json", guarded)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.name)
def test_no_request_breaks_the_server(
    schema: schemathesis.BaseSchema, mode: schemathesis.GenerationMode
) -> None:
    seen = 0
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: schemathesis.Case) -> None:
            reply = case.call()
            assert reply.status_code < 500, f"{case.as_curl_command()}: {reply.text}"
            if reply.status_code >= 400:
                detail = reply.json()["detail"]
                assert isinstance(detail, str), detail
                assert len(detail) <= 300
                assert "\n" not in detail

        try:
            check()
        except Unsatisfiable:  # nothing about this operation can be wrong
            continue
        seen += 1
    assert seen >= 8
