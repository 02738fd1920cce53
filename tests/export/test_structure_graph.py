from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from clickseg_export import structure_graph
from clickseg_export.export_model import CheckpointOptions, export_model
from clickseg_export.onnx_weights import read_initial
from clickseg_export.parity import example_batch

import clickseg_infer as cs
from clickseg_infer.model import read_model_file, read_structures
from clickseg_train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.networks import build_network

PLAIN = CheckpointOptions(heads=False)


@pytest.fixture(params=[0, 4])
def config(tiny_config: Path, request: pytest.FixtureRequest) -> TrainConfig:
    """Of a branch that answers at stride 4, or at stride 2."""
    tiny = read_config(tiny_config)
    network = replace(
        tiny.network,
        structures=("liver|hepar", "spleen"),
        lesions=("tumour",),
        structure_width=6,
        structure_detail=request.param,
        structure_windows=len(tiny.model.hu_windows),
    )
    return replace(tiny, network=network)


@pytest.fixture
def checkpoint(config: TrainConfig, tmp_path: Path) -> Path:
    """Of a branch with chances that differ from place to place."""
    torch.manual_seed(0)
    network = build_network(config.network, len(config.model.spec().channels))
    torch.nn.init.normal_(network.structures.classes.weight)
    if network.structures.sharper is not None:
        torch.nn.init.normal_(network.structures.sharper.classes.weight)
    state = network.state_dict()
    path = tmp_path / "some.ckpt"
    write_checkpoint(path, Checkpoint(config, 0, state, state, {}, {}, ()))
    return path


@pytest.mark.parametrize("half", [False, True])
def test_the_file_tells_structures_apart_as_the_branch_does(
    half: bool, config: TrainConfig, checkpoint: Path, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    exported = export_model(checkpoint, out, replace(PLAIN, half_weights=half))
    assert exported.parity.structures < 1e-4
    state, spec = read_initial(out, config)
    network = build_network(config.network, len(spec.channels)).eval()
    network.load_state_dict(state)
    images = example_batch(spec)[:, : len(spec.hu_windows)]
    with torch.no_grad():
        theirs = network.structures(torch.from_numpy(images)).softmax(1).numpy()
    cell = config.network.structure_cell
    for engine in ("openvino", "onnxruntime"):
        with cs.load_model(out, engine=engine, precision="float32") as model:
            assert model.spec.structures == ("liver", "spleen")
            assert model.structures.engine.name == engine
            for image, chances in zip(images, theirs, strict=True):
                ours = model.structures.chances(image)
                assert ours.shape == (3, *(n // cell for n in spec.patch_size))
                assert np.allclose(ours.sum(0), 1, atol=1e-5)
                assert np.allclose(ours[1:], chances[1:3], atol=1e-4)
                assert np.ptp(ours[1]) > 0.05


def test_a_branch_that_differs_is_refused(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure_graph, "TOLERANCE", 0.0)
    with pytest.raises(cs.ParityError, match="chance of a structure"):
        export_model(checkpoint, tmp_path / "model.onnx", PLAIN)
    assert not (tmp_path / "model.onnx").exists()


def test_fewer_bits_leave_the_branch_as_it_is(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime.transformers.float16")
    whole, small = tmp_path / "whole.onnx", tmp_path / "small.onnx"
    export_model(checkpoint, whole, PLAIN)
    export_model(whole, small, precision="fp16", force=True)
    graphs = [read_structures(read_model_file(path)[1]) for path in (whole, small)]
    assert graphs[0] == graphs[1] != b""
    with cs.load_model(small, engine="onnxruntime", precision="float16") as model:
        assert model.engine.precision == "float16"
        assert model.structures.engine.precision == "float32"


def test_structures_and_refinement_go_together(
    checkpoint: Path, tmp_path: Path, ball_volume: cs.Volume
) -> None:
    export_model(checkpoint, tmp_path / "model.onnx")
    clicks = [((20, 40, 50), True), ((20, 40, 53), False), ((20, 42, 50), True)]
    with cs.load_model(tmp_path / "model.onnx", refine="fbrs-c") as model:
        session = cs.Session(model, ball_volume)
        for zyx, positive in clicks:
            mask = session.click(zyx, positive)
            assert all(mask[click.zyx] == click.positive for click in session.clicks)
            fresh = cs.predict(model, ball_volume, session.clicks)
            assert np.array_equal(mask, fresh.mask)
        assert session.prediction.meant is not None


def test_a_branch_is_never_left_untaught(
    config: TrainConfig, checkpoint: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    """Without a branch in the configuration a model's is left out; the other way is refused."""
    out = tmp_path / "model.onnx"
    export_model(checkpoint, out, PLAIN)
    without = replace(config, network=replace(config.network, structures=(), lesions=()))
    state, _ = read_initial(out, without)
    assert not any(name.startswith("structures.") for name in state)
    with pytest.raises(cs.CheckpointError, match="tells other structures apart"):
        read_initial(tiny_onnx, config)
    state, _ = read_initial(tiny_onnx, replace(config, learns="structures"))
    assert any(name.startswith("structures.") for name in state)


def test_structures_that_are_known_by_name_keep_what_they_learnt(
    checkpoint: Path, config: TrainConfig, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    export_model(checkpoint, out, PLAIN)
    network = replace(
        config.network, structures=("heart", "spleen", "liver|hepar"), lesions=("cyst", "tumour")
    )
    wanted = replace(config, network=network, learns="structures")
    before = read_checkpoint(checkpoint).average["structures.classes.weight"]
    for path, kept in ((checkpoint, {0: 0, 2: 2, 3: 1, 5: 3}), (out, {0: 0, 2: 2, 3: 1})):
        after = read_initial(path, wanted)[0]["structures.classes.weight"]
        assert after.shape == (6, *before.shape[1:])
        same = {
            (new, old)
            for new, one in enumerate(after)
            for old, other in enumerate(before)
            if torch.allclose(one, other, atol=1e-6)
        }
        assert same == set(kept.items())
    if config.network.structure_detail:
        sharper = "structures.sharper.classes.weight"
        before = read_checkpoint(checkpoint).average[sharper]
        for path in (checkpoint, out):
            after = read_initial(path, wanted)[0][sharper]
            assert after.shape == (3, *before.shape[1:])
            assert not after[0].any()
            assert torch.allclose(after[1:], before[[1, 0]], atol=1e-6)
        before = read_checkpoint(checkpoint).average["structures.classes.weight"]
    one_lesion = replace(wanted, network=replace(network, lesions=("cyst",)))
    after = read_initial(out, one_lesion)[0]["structures.classes.weight"]
    assert torch.allclose(after[4], before[3])  # an exported model does not name its own
    with pytest.raises(cs.CheckpointError, match="tells other structures apart"):
        read_initial(checkpoint, replace(wanted, learns="clicks"))
