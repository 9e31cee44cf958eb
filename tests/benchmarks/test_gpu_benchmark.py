"""The GPU benchmark without a GPU: what it compares is the same, what it counts is right, nothing is lost."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stn_kernels import backend

if not backend.HAS_TRITON:
    pytest.skip("the benchmark needs Triton", allow_module_level=True)

import cases
import compile_ahead
import gpu_bench
import gpu_test
import implementations as peers
import measure
import network
import report
import results
import tune

CPU = torch.device("cpu")
SCRIPTS = Path(cases.__file__).parent
OPERATIONS = ("affine", "grid", "displacement", "tps")


def script(*arguments, **environment):
    kernels = str(SCRIPTS.parent)
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": kernels, **environment},
    )


# --- cases -------------------------------------------------------------------------------------------------


def test_every_transform_layout_dtype_and_operation_has_cases_none_of_them_twice():
    core, everything = list(cases.core_cases()), list(cases.all_cases())
    assert len(set(core)) == len(core)
    assert len(set(everything)) == len(everything)
    assert set(core) <= set(everything)
    for name, values in (
        ("transform", cases.TRANSFORMS),
        ("layout", cases.LAYOUTS),
        ("dtype", cases.DTYPES),
        ("operation", OPERATIONS),
    ):
        assert {getattr(case, name) for case in core} == set(values)


@pytest.mark.parametrize("transform", cases.TRANSFORMS[:4])
@pytest.mark.parametrize("axes", [2, 3])
def test_a_transform_samples_the_same_points_whatever_the_operation(axes, transform):
    size = (6, 10, 8)[:axes]
    points = {}
    for operation in OPERATIONS[: 4 if axes == 2 else 3]:
        case = cases.Case("", (2, 1, *size), transform, operation, points=9)
        points[operation] = gpu_bench.points_of(case, *case.parameters(CPU))
    for operation, found in points.items():
        # Sums in another order, and a spline's solved system, at coordinates up to 6.
        torch.testing.assert_close(found, points["affine"], atol=2e-5, rtol=0, msg=operation)


@pytest.mark.parametrize("case", list(cases.smoke_cases()), ids=str)
def test_the_library_and_pytorch_compute_the_same(case):
    image, (parameters, shared) = case.image(CPU), case.parameters(CPU)
    gpu_bench.agree(case, image, parameters, shared)


def test_a_case_that_differs_from_pytorch_is_not_timed(monkeypatch):
    case = next(cases.smoke_cases())
    monkeypatch.setattr(peers, "own", lambda case, shared: lambda image, theta: image + 1)
    with pytest.raises(AssertionError, match="off by"):
        gpu_bench.agree(case, case.image(CPU), *case.parameters(CPU))


# --- bytes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "side"),
    [
        (cases.IDENTITY, 16),
        (cases.ZOOM, 4),  # two pixels magnified, and the neighbours that fade into them
        (cases.SHRINK, 4 * 2),  # four points lie within the image, each between two pixels
    ],
)
def test_the_share_of_an_image_that_is_read(transform, side):
    case = cases.Case("", (2, 3, 16, 16), transform)
    points = gpu_bench.points_of(case, *case.parameters(CPU))
    assert measure.touched(points, case) == pytest.approx((side / 16) ** 2)


def test_bytes_of_each_direction():
    case = dataclasses.replace(cases.PHOTOGRAPHS, shape=(2, 3, 8, 8), dtype="float16")
    image, (theta, shared) = case.image(CPU), case.parameters(CPU)
    counted = measure.traffic(case, image, theta, gpu_bench.points_of(case, theta, shared))
    picture, parameters = 2 * 3 * 8 * 8 * 2, 2 * 6 * 4
    assert counted.of("forward") == 2 * picture + parameters
    assert counted.of("backward of theta") == 2 * picture + 2 * parameters
    assert counted.of("backward") == 3 * picture + 2 * parameters


def test_transforms_of_one_image_read_it_once():
    case = cases.Case("", (2, 3, 8, 8), transforms=4)
    image, (theta, shared) = case.image(CPU), case.parameters(CPU)
    counted = measure.traffic(case, image, theta, gpu_bench.points_of(case, theta, shared))
    assert counted.image == image.nbytes
    assert counted.output == 4 * image.nbytes


# --- results -----------------------------------------------------------------------------------------------


def open_results(path):
    return results.Results(path, "A GPU", {"torch": "2"}, "2026-01-01")


def test_rows_are_kept_one_by_one_and_another_run_goes_on(tmp_path):
    path = tmp_path / "a-gpu.json"
    row = {
        **results.describe(cases.PHOTOGRAPHS),
        "direction": "forward",
        "implementation": "x",
        "median": 1.0,
    }
    first = open_results(path)
    first.add(row)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = open_results(path)
    assert again.has(row)
    assert not again.has({**row, "implementation": "y"})
    assert again.content["rows"] == json.loads(path.read_text())["rows"] == [row]


def test_rows_of_another_state_of_the_library_are_not_mixed_in(tmp_path, monkeypatch):
    path = tmp_path / "a-gpu.json"
    open_results(path).add({"median": 1.0})
    monkeypatch.setattr(results, "sources", lambda: "changed")
    assert open_results(path).content["rows"] == []


def test_a_write_that_is_cut_off_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    results.write(path, [1])
    monkeypatch.setattr(Path, "replace", lambda self, other: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        results.write(path, [2])
    assert json.loads(path.read_text()) == [1]


def measured(case, direction, implementation, median, **others):
    row = {**results.describe(case), "direction": direction, "implementation": implementation}
    return {
        **row,
        "median": median,
        "low": median,
        "high": median,
        "bytes": 8,
        "copy": 0.9,
        "peak": 0,
        "needed": 0,
        **others,
    }


def content(*rows):
    software = {"torch": "2", "triton": "3"}
    return {
        "device": "A GPU",
        "date": "",
        "software": software,
        "copy_bandwidth": 1e12,
        "rows": list(rows),
    } | {"network": [{"layout": "channels-last", "implementation": "PyTorch", "median": 0.1, "added": 0.06}]}


def test_targets_are_held_missed_or_not_measured():
    case = cases.PHOTOGRAPHS
    found = content(
        measured(case, "forward", peers.OWN, 1.0),
        measured(case, "forward", peers.EAGER, 2.0),
        measured(case, "forward", peers.COMPILED, 1.01),
        measured(case, "backward", peers.OWN, 1.0),
        {**results.describe(case), "direction": "backward", "implementation": peers.EAGER, "error": "no"},
    )
    lines = {line[14:].split(":")[0]: line[:13].strip() for line in report.verdicts(found).splitlines()}
    assert lines["forward, of a copy's speed"] == "holds"
    assert lines["forward, C=3, times PyTorch"] == "MISSED"
    assert lines["forward, time beside torch.compile's"] == "holds"
    assert lines["backward, C=3, times PyTorch"] == "not measured"
    assert lines["volumes, forward, times PyTorch"] == "not measured"


def test_table_figure_and_network_of_a_file(tmp_path):
    case = cases.PHOTOGRAPHS
    found = content(
        measured(case, "forward", peers.OWN, 1.0), measured(case, "forward", peers.EAGER, 2.5, peak=2**21)
    )
    line = report.table(found).splitlines()[2]
    assert line.startswith(
        "| photographs 16x3x1024x1024, affine, identity | forward | 1e+03 | 90% | 0 | 2 | 2.50 |"
    )
    assert "6.0%" in report.network_table(found)
    report.figure(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_the_cache_is_overwritten_until_a_call_is_sent():
    assert measure.overwritings(host=300e-6, each=60e-6) == 10
    assert measure.overwritings(host=1e-6, each=60e-6) == 1
    assert measure.overwritings(host=10.0, each=60e-6) == 100


# --- running -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gpu_bench.py", "gpu_test.py", "tune.py"])
def test_without_a_gpu_the_scripts_say_so(name):
    found = script(str(SCRIPTS / name), CUDA_VISIBLE_DEVICES="")
    assert found.returncode == 1
    assert found.stderr.startswith("no GPU: --smoke")


def test_a_smoke_run_measures_every_direction_and_goes_on_where_it_was_cut_off(tmp_path, monkeypatch):
    path = tmp_path / "smoke.json"
    command = [str(SCRIPTS / "gpu_bench.py"), "--smoke", "--only", "launch-bound", "--output", str(path)]
    monkeypatch.setenv("TORCHDYNAMO_DISABLE", "1")  # torch.compile's own compiling is half of the time
    cut_off = script(*command, "--seconds", "0")
    assert cut_off.returncode == 75, cut_off.stderr
    assert "goes on" in cut_off.stdout
    first = json.loads(path.read_text())
    # As if it had got as far as this.
    row = {**results.describe(next(cases.smoke_cases())), "direction": "forward", "implementation": peers.OWN}
    results.write(path, {**first, "rows": [{**row, "kept": True, "median": 1.0, "copy": 1.0, "peak": 0}]})
    finished = script(*command)
    assert finished.returncode == 0, finished.stderr
    rows = json.loads(path.read_text())["rows"]
    assert rows[0]["kept"]
    assert sum(row["direction"] == "forward" and row["implementation"] == peers.OWN for row in rows) == 1
    assert {row["direction"] for row in rows} == set(gpu_bench.DIRECTIONS)
    own = [row for row in rows if row["implementation"].startswith(peers.OWN)]
    assert len(own) == len(gpu_bench.DIRECTIONS) + len(peers.WAYS) - 1
    assert not any("error" in row for row in own)


def test_figures_need_tests_that_passed_here_in_this_state(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_test, "STATE", tmp_path)
    assert not gpu_test.is_green("A GPU")
    names = [path.name for path in gpu_test.test_files(smoke=False)]
    assert {"test_sample.py", "test_gpu.py", "test_backward_ways.py"} <= set(names)

    def write(chosen):
        state = {name: {"seconds": 1.0, "of": gpu_test.fingerprint(name)} for name in chosen}
        results.write(gpu_test.state_file("A GPU"), state)

    write(names[1:])
    assert not gpu_test.is_green("A GPU")
    write(names)
    assert gpu_test.is_green("A GPU")
    assert not gpu_test.is_green("Another GPU")
    monkeypatch.setattr(results, "sources", lambda: "changed")
    assert not gpu_test.is_green("A GPU")


def test_a_failing_step_is_run_again_and_a_passing_one_is_not(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu_test, "STATE", tmp_path)
    monkeypatch.setattr(gpu_test, "test_files", lambda smoke: [])
    monkeypatch.setattr(
        gpu_test,
        "steps",
        lambda jobs, smoke: iter(
            [
                ("good", [sys.executable, "-c", ""], {}),
                ("bad", [sys.executable, "-c", "import sys; sys.exit(1)"], {}),
                ("empty", [sys.executable, "-c", "import sys; sys.exit(5)"], {}),
            ]
        ),
    )
    assert gpu_test.run("A GPU", float("inf"), jobs=1, smoke=True) == 1
    assert set(gpu_test.passed("A GPU")) == {"good", "empty"}
    assert gpu_test.run("A GPU", float("inf"), jobs=1, smoke=True) == 1
    assert "good: passed before" in capsys.readouterr().out
    assert gpu_test.run("A GPU", float("-inf"), jobs=1, smoke=True) == 75


OF_GPU = "import pytest\n@pytest.mark.gpu\ndef test_something(): "


def test_files_that_passed_are_told_from_those_that_failed(tmp_path):
    texts = {
        "test_good.py": OF_GPU + "pass\n",
        "test_bad.py": OF_GPU + "assert False\n",
        "test_broken.py": "import nothing_that_is_there\n",
        "test_of_no_gpu.py": "def test_something(): pass\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    # What cannot be imported ends a session before its first test, but not that of several workers.
    code, passed = gpu_test.call_tests([tmp_path / name for name in texts], 2, 60.0)
    assert code != 0
    assert set(passed) <= {"test_good.py", "test_of_no_gpu.py"}
    good = [tmp_path / name for name in texts if name != "test_broken.py"]
    code, passed = gpu_test.call_tests(good, 1, 60.0)
    assert code == 1
    assert set(passed) == {"test_good.py", "test_of_no_gpu.py"}


def test_tests_that_take_too_long_have_not_passed(tmp_path):
    path = tmp_path / "test_slow.py"
    path.write_text(OF_GPU + "import time; time.sleep(60)\n")
    assert gpu_test.call_tests([path], 1, 3.0) == (gpu_test.OUT_OF_TIME, {})


COMPILE = """
import sys
sys.path.insert(0, sys.argv[1])
import cases, codegen, compile_ahead, dataclasses, triton
triton.runtime.driver.set_active(codegen.CompileOnly(codegen.TARGETS["sm_90"]))
print(compile_ahead.compile_case(dataclasses.replace(cases.LAUNCH_BOUND, dtype="float16")))
"""


def test_every_launch_of_a_case_compiles_ahead():
    """Forward; backward of all by default: scatter; of theta; in fixed point; gathered, in both ways, each of
    which scatters what it does not gather and sums theta apart."""
    found = script("-c", COMPILE, str(SCRIPTS), TRITON_INTERPRET="")
    assert found.stdout.strip() == "10", found.stderr


def test_what_is_compiled_ahead_has_the_strides_of_what_is_run():
    case = cases.Case("", (2, 4, 6, 10), operation="displacement", layout=cases.LAYOUTS[1])
    tensors, choices = compile_ahead.planned(case)
    assert choices.coordinate_map == "normalised_displacement"
    assert all(t is None or t.is_meta for t in tensors)
    image, (parameters, _) = case.image(CPU), case.parameters(CPU)
    assert tensors[0].stride() == image.stride()
    assert tensors[1].stride() == parameters.stride()


# --- tuning ------------------------------------------------------------------------------------------------


class Invented(tune.Sweep):
    """A device on which times follow a formula."""

    def __init__(self, formula):
        self.formula = formula

    def measured(self, table):
        return self.formula(table)


def test_tuning_finds_what_is_quicker_and_leaves_noise_alone():
    def formula(table):
        pixels = 1.0 if table.pixels == 512 else 1.2
        noise = 0.99 if table.warps == 8 else 1.0
        return {
            "planar": [pixels * noise, [f"{table.pixels} {table.warps}"]],
            "vectors": [3.0 * noise, [f"{table.elements} {table.warps}"]],
        }

    default = tune.launch.Table()
    assert Invented(formula).best() == dataclasses.replace(default, pixels=512)


def test_tuning_leaves_out_what_does_not_compile():
    def formula(table):
        fails = table.elements == 2048
        return {"vectors": [None if fails else 1 / table.elements, [str(table.elements)]]}

    assert Invented(formula).best().elements == 1024


# --- the paper's network -----------------------------------------------------------------------------------


def test_the_paper_s_svhn_network():
    model = network.Svhn(None)
    convolutions = [m for m in model.layers if isinstance(m, torch.nn.Conv2d)]
    linear = [m for m in model.layers if isinstance(m, torch.nn.Linear)]
    assert [c.out_channels for c in convolutions] == [48, 64, 128, 160, 192, 192, 192, 192]
    assert [m.out_features for m in linear] == [3072, 3072, 3072, 55]
    assert linear[0].in_features == 192 * 4 * 4


@pytest.mark.parametrize("sampler", [network.own, network.pytorch])
def test_four_transformers_before_the_first_convolutions_start_as_the_identity(sampler):
    with_them, plain = network.Svhn(sampler, 16, 16).eval(), network.Svhn(None, 16, 16).eval()
    transformers = [i for i, m in enumerate(with_them.layers) if isinstance(m, network.Transformer)]
    assert len(transformers) == 4
    rest = [m for m in with_them.layers if not isinstance(m, network.Transformer)]
    plain.layers.load_state_dict(torch.nn.Sequential(*rest).state_dict())
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(with_them(images), plain(images), atol=1e-5, rtol=1e-4)
