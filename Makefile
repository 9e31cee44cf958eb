# The two commands of the README are `make book` and `make test`. ARGS="..." is passed on to what a target runs.

python = .venv/bin/python
chapters = chapters/*.ipynb chapters/solutions/*.ipynb
nbval = --nbval --nbval-current-env --nbval-sanitize-with=chapters/sanitize.cfg --nbval-cell-timeout=600

.PHONY: book test lint chapters numbers html browser codegen faults mutants properties wheels versions bench gpu gpu-test \
	gpu-bench tune environment

# JupyterLab on book/, a working copy of the chapters.
book: environment
	@$(python) chapters/open_book.py $(ARGS)

# Everything, as on a machine without a GPU. One thread per process: two processes of two threads each are slower.
# A file goes to one process, because what its tests share, such as compiled kernels, takes minutes to make.
test: export CUDA_VISIBLE_DEVICES =
test: export OMP_NUM_THREADS = 1
test: export MKL_NUM_THREADS = 1
test: lint
	$(python) -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=15 $(ARGS)
	$(python) -m pytest $(nbval) -n 2 --dist loadscope --durations=15 $(chapters)

lint: environment
	$(python) -m ruff check
	$(python) -m ruff format --check
	$(python) -m mypy

# Execute the chapters anew from their sources. ARGS="02 03" chooses chapters.
chapters: environment
	$(python) chapters/build.py $(ARGS)

# Which cell or reference the numbers in the chapters' prose are from. ARGS="--list 05" shows all of a chapter.
numbers: environment
	$(python) chapters/check_numbers.py $(ARGS)

# The book as a static site that needs no network. A warning, such as a link that leads nowhere, is an error.
html: environment
	$(python) -m sphinx -q -W -d build/doctrees chapters build/html
	@echo "Open build/html/index.html"

# The chapters in JupyterLab in a headless Chromium: all rendered, three run, sliders moved. Skipped without Chromium.
browser: environment
	$(python) -m pytest tests/chapters/test_browser.py $(ARGS)

# Compile the kernels for GPUs that need not be there: registers, spills, accesses and atomics of each, as a table.
codegen: environment
	$(python) kernels/benchmarks/codegen.py $(ARGS)

# Plant faults in the kernels, one at a time, and see that the tests notice each.
faults: environment
	$(python) tests/kernels/run_faults.py $(ARGS)

# Plant fifty faults in stn and stn_kernels, drawn at random, and see that the chapters notice them: two hours, and it
# goes on where it was cut off. Each entry of chapters/mutants.json says which chapter noticed.
mutants: environment
	$(python) chapters/mutants.py $(ARGS)

# Both wheels in a clean environment, which is downloaded, beside packages of similar names. TORCH_INDEX as below.
wheels: environment
	$(python) -m pytest -rA -p no:cacheprovider tests/repository/check_wheels.py $(ARGS)

# The unit tests with the oldest promised and the newest PyTorch and Triton, in environments of their own.
versions: environment
	$(python) .ci/versions.py $(ARGS)

# What the kernels' tests say of every problem, on many more of them, new ones each time. ARGS="-k splat" chooses.
properties: export CUDA_VISIBLE_DEVICES =
properties: environment
	$(python) -m pytest tests/kernels/test_properties.py --hypothesis-profile=properties --durations=0 $(ARGS)

# What the import takes, and the CPU path beside PyTorch's own.
bench: environment
	$(python) kernels/benchmarks/import_time.py
	$(python) kernels/benchmarks/cpu_path.py $(ARGS)

# With a GPU and PyTorch, Triton and pytest there: the tests, compiled; then, if all passed, the measurements. Both go
# on where they were cut off. SMOKE=1: the same without a GPU, tiny and interpreted. ALL=1: every case, not the core.
gpu: gpu-test gpu-bench

# Whatever Python has them: no environment is made, so that no network is needed.
gpu_python = PYTHONPATH=kernels:. $(if $(wildcard $(python)),$(python),python3)
smoke = $(if $(SMOKE),--smoke)

gpu-test:
	$(gpu_python) kernels/benchmarks/gpu_test.py $(smoke) $(ARGS)

gpu-bench:
	$(gpu_python) kernels/benchmarks/gpu_bench.py $(smoke) $(if $(ALL),--all) $(ARGS)

# Search the block shapes that are quickest on the GPU that is there.
tune:
	$(gpu_python) kernels/benchmarks/tune.py $(smoke) $(ARGS)

environment:
	@.ci/environment
